"""Where a registry keeps manifests and blobs."""

from __future__ import annotations

import pytest

from registry import blob_url, manifest_url


@pytest.mark.parametrize(("insecure", "scheme"), [(True, "http"), (False, "https")])
def test_url(insecure: bool, scheme: str) -> None:
    url = manifest_url("r.example:5000", "team/model", "7b", insecure=insecure)
    assert url == f"{scheme}://r.example:5000/v2/team/model/manifests/7b"
    blob = blob_url("r.example:5000", "team/model", "sha256:ab", insecure=insecure)
    assert blob == url.replace("manifests/7b", "blobs/sha256:ab")
