"""Manifests, and where a registry keeps them."""

from __future__ import annotations

import json
import urllib.error

import pytest

from registry import Manifest, ask_manifest, blob_url, manifest_url
from tests.unit.models.loader_rig import Ollama, sha256

CONTENT = json.dumps({
    "config": {"digest": "sha256:c", "size": 1, "mediaType": "config"},
    "layers": [
        {"digest": "sha256:a", "size": 20, "mediaType": "weights"},
        {"digest": "sha256:b", "size": 300, "mediaType": "license"},
    ],
}).encode()  # fmt: skip


def test_blobs_and_layers() -> None:
    manifest = Manifest(CONTENT)
    assert manifest.digest == sha256(CONTENT)
    assert manifest.blobs == {"sha256:a": 20, "sha256:b": 300, "sha256:c": 1}
    assert manifest.size == 321
    assert manifest.layers_of("weights") == {"sha256:a"}
    assert manifest.layers_of("other") == set()


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b'{"layers": [{}]}'])
def test_what_is_none(content: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Manifest(content)


@pytest.mark.parametrize(("insecure", "scheme"), [(True, "http"), (False, "https")])
def test_url(insecure: bool, scheme: str) -> None:
    url = manifest_url("r.example:5000", "team/model", "7b", insecure=insecure)
    assert url == f"{scheme}://r.example:5000/v2/team/model/manifests/7b"
    blob = blob_url("r.example:5000", "team/model", "sha256:ab", insecure=insecure)
    assert blob == url.replace("manifests/7b", "blobs/sha256:ab")


def test_asked(ollama: Ollama) -> None:
    digest = ollama.publish(f"{ollama.host}/library/a:1")
    url = manifest_url(ollama.host, "library/a", "1", insecure=True)
    assert ask_manifest(url, 5).digest == digest
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask_manifest(manifest_url(ollama.host, "library/gone", "1", insecure=True), 5)
    with caught.value as error:
        assert error.code == 404
