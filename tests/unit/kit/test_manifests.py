"""Manifests: what is one, and what only looks like one."""

from __future__ import annotations

import json
import os
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from manifests import Manifest, ask_manifest, read_manifest
from outside import FormError
from registry import MANIFEST_LIMIT, manifest_url
from tests.unit.models.loader_rig import Ollama, sha256

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
LAYER: dict[str, Any] = {"digest": A, "size": 20, "mediaType": "weights"}
CONTENT = json.dumps({
    "config": {"digest": C, "size": 1, "mediaType": "config"},
    "layers": [LAYER, {"digest": B, "size": 300, "mediaType": "license"}],
}).encode()  # fmt: skip
NONE = {
    "half": CONTENT[:40],
    "nothing": b"",
    "empty": b"{}",
    "list": b"[]",
    "null": b"null",
    "no text": b"\xff\xfe",
    "deep": b"[" * 100_000,
    "nan": b'{"layers": NaN}',
    "layers null": b'{"layers": null}',
    "layer null": b'{"layers": [null]}',
    "config a text": json.dumps({"layers": [], "config": "x"}).encode(),
} | {
    f"{key} {value}": json.dumps({"layers": [LAYER | {key: value}]}).encode()
    for key, value in [
        ("digest", 7), ("digest", None), ("digest", f"{A}\n"), ("digest", A.upper()),
        ("digest", "sha256:../../etc/shadow"), ("size", "7"), ("size", -1), ("size", 1.5),
        ("size", True), ("size", 2**63), ("size", None), ("mediaType", []), ("mediaType", "\ud800"),
    ]
}  # fmt: skip


def test_blobs_and_layers() -> None:
    manifest = Manifest(CONTENT)
    assert manifest.digest == sha256(CONTENT)
    assert manifest.blobs == {A: 20, B: 300, C: 1}
    assert manifest.size == 321
    assert manifest.layers_of("weights") == {A}
    assert manifest.layers_of("other") == set()


@pytest.mark.parametrize("content", NONE.values(), ids=NONE)
def test_what_is_none(content: bytes) -> None:
    with pytest.raises(FormError):
        Manifest(content)


class TestAsked:
    def test_registry(self, ollama: Ollama) -> None:
        digest = ollama.publish(f"{ollama.host}/library/a:1")
        url = manifest_url(ollama.host, "library/a", "1", insecure=True)
        assert ask_manifest(url, 5).digest == digest
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask_manifest(manifest_url(ollama.host, "library/gone", "1", insecure=True), 5)
        with caught.value as error:
            assert error.code == 404

    def test_endless_answer(self, ollama: Ollama) -> None:
        ollama.manifests["/v2/library/a/manifests/1"] = b" " * (MANIFEST_LIMIT + 1)
        url = manifest_url(ollama.host, "library/a", "1", insecure=True)
        with pytest.raises(FormError, match=f"more than {MANIFEST_LIMIT} bytes"):
            ask_manifest(url, 5)


class TestRead:
    def test_file(self, tmp_path: Path) -> None:
        path = tmp_path / "manifest"
        path.write_bytes(CONTENT)
        assert read_manifest(path).size == 321

    def test_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(FormError, match="is no file"):
            read_manifest(tmp_path / "pipe")

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(FormError, match="is no file"):
            read_manifest(tmp_path)

    def test_endless_file(self) -> None:
        with pytest.raises(FormError):
            read_manifest(Path("/dev/zero"))
