"""Newer releases of what is pinned, as their publishers' own files say them."""

from __future__ import annotations

import gzip
import http.server
import json
import runpy
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleet.kit.errors import FleetError
from fleet.newest import PINS, Sources, moved, newest, ollama_checksums

AMD, ARM = "a1" * 32, "b2" * 32
OTHER = "Package: docker-ce-cli\nVersion: 5:99.0.0-1~debian.12~bookworm\n"


def entry(package: str, version: str) -> str:
    return f"Package: {package}\nArchitecture: amd64\nVersion: {version}\nDescription: x\n more\n"


def docker(*engines: str) -> str:
    entries = [entry("docker-ce", f"5:{version}-1~debian.12~bookworm") for version in engines]
    more = [entry("containerd.io", "2.4.0-1~x"), entry("docker-compose-plugin", "5.6.1-1~x")]
    return "\n".join([OTHER, *entries, *more])


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Path:
    """What is published: the newest Docker is not for every suite yet."""
    texts = {
        "repos/ollama/ollama/releases/latest": json.dumps({"tag_name": "v0.35.1"}),
        "repos/langgenius/dify/releases/latest": json.dumps({"tag_name": "1.17.0"}),
        "ollama/ollama/releases/download/v0.35.1/sha256sum.txt": (
            f"{AMD}  ./ollama-linux-amd64.tar.zst\n{ARM}  ./ollama-linux-arm64.tar.zst\n"
            f"{'c3' * 32}  ./ollama-linux-amd64-rocm.tar.zst\n"
        ),
        "debian/dists/bookworm/stable/binary-amd64/Packages.gz": docker("29.9.0", "30.0.0"),
        "debian/dists/bookworm/stable/binary-arm64/Packages.gz": docker("29.9.0", "29.10.0"),
        "ubuntu/dists/noble/stable/binary-amd64/Packages.gz": docker("29.10.0", "29.9.0"),
        "ubuntu/dists/noble/stable/binary-arm64/Packages.gz": docker("29.9.0", "29.10.0"),
        "stable/deb/amd64/Packages": entry("nvidia-container-toolkit", "1.21.0-1"),
        "stable/deb/arm64/Packages": entry("nvidia-container-toolkit", "1.21.0-1"),
    }
    texts["debian/dists/bookworm/stable/binary-amd64/Packages.gz"] += "\n" + entry(
        "docker-ce", "5:29.10.0-1~debian.12~bookworm"
    )
    for name, text in texts.items():
        path = tmp_path / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return tmp_path / "web"


@pytest.fixture
def sources(web: Path) -> Iterator[Sources]:
    handler = partial(Quiet, directory=str(web))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        suites = (("debian", "bookworm"), ("ubuntu", "noble"))
        yield Sources(address, address, address, address, suites)
        server.shutdown()


def test_newest_that_every_host_can_have(sources: Sources) -> None:
    assert newest(sources) == {
        "OLLAMA_VERSION": "0.35.1",
        "DOCKER_VERSION": "29.10.0",
        "CONTAINERD_VERSION": "2.4.0",
        "COMPOSE_VERSION": "5.6.1",
        "TOOLKIT_VERSION": "1.21.0-1",
        "DIFY_VERSION": "1.17.0",
    }


def test_pins_are_moved_and_earlier_checksums_stay(sources: Sources, tmp_path: Path) -> None:
    versions = newest(sources)
    sums = ollama_checksums(sources, versions["OLLAMA_VERSION"])
    assert sums == {"amd64": AMD, "arm64": ARM}
    path = tmp_path / "pins.py"
    path.write_text(moved(PINS.read_text(), versions, sums))
    before, after = runpy.run_path(str(PINS)), runpy.run_path(str(path))
    assert {name: after[name] for name in versions} == versions
    assert after["OLLAMA_SHA256"] == before["OLLAMA_SHA256"] | {
        ("0.35.1", "amd64"): AMD,
        ("0.35.1", "arm64"): ARM,
    }
    keys = [name for name in before if name.endswith("_KEY") or name == "NVIDIA_FINGERPRINTS"]
    assert keys
    assert [after[name] for name in keys] == [before[name] for name in keys]
    assert moved(path.read_text(), versions, sums) == path.read_text()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("repos/ollama/ollama/releases/latest", '{"tag_name": "v0.36.0-rc1"}', "no version of"),
        ("repos/ollama/ollama/releases/latest", "[]", "not the description of a release"),
        ("stable/deb/arm64/Packages", "<html>", "no package in it"),
        ("stable/deb/arm64/Packages", entry("nvidia-container-toolkit", "1.0.0-1"), "for every"),
    ],
)
def test_what_is_not_as_published_is_refused(
    sources: Sources, web: Path, name: str, text: str, words: str
) -> None:
    (web / name).write_text(text)
    with pytest.raises(FleetError, match=words):
        newest(sources)


def test_no_checksum_for_an_architecture(sources: Sources, web: Path) -> None:
    name = "ollama/ollama/releases/download/v0.35.1/sha256sum.txt"
    (web / name).write_text(f"{AMD}  ./ollama-linux-amd64.tar.zst\n")
    with pytest.raises(FleetError, match=r"no checksum for arm64"):
        ollama_checksums(sources, "0.35.1")
    with pytest.raises(FleetError, match="404"):
        ollama_checksums(sources, "0.36.0")
