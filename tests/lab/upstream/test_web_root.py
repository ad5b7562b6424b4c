"""The upstream's web root and web server: releases and a model registry, as the real ones."""

import hashlib
import http.client
import http.server
import json
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
import requests

from lab.upstream import Upstream, build, prepare, release
from tests.lab.upstream.rig import CACHE


def test_prepare_finds_what_it_built(upstream: Upstream) -> None:
    start = time.monotonic()
    assert prepare(CACHE) == upstream
    assert time.monotonic() - start < 1


def test_a_killed_build_leaves_nothing_whole(tmp_path: Path) -> None:
    target = tmp_path / "web"
    if (pid := os.fork()) == 0:
        build.once(target, lambda folder: ((folder / "half").touch(), os._exit(9))[0])
    os.waitpid(pid, 0)
    assert [path.name[:7] for path in tmp_path.iterdir()] == [".build-"]
    build.once(target, lambda folder: (folder / "whole").touch())
    assert [path.name for path in tmp_path.rglob("*")] == ["web", "whole"]


@pytest.mark.parametrize("version", release.VERSIONS)
def test_release_has_the_real_layout(upstream: Upstream, registry: str, version: str) -> None:
    address = f"http://{registry}/ollama/ollama/releases/download/v{version}/"
    sums = requests.get(address + "sha256sum.txt", timeout=10).text
    tarball = requests.get(address + "ollama-linux-amd64.tar.zst", timeout=10).content
    assert sums == f"{hashlib.sha256(tarball).hexdigest()}  ./ollama-linux-amd64.tar.zst\n"
    if version == upstream.ollama_version:
        assert sums.startswith(upstream.ollama_sha256)
    plain = subprocess.run(["zstd", "-dc"], input=tarball, stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=__import__("io").BytesIO(plain.stdout)) as archive:
        members = {member.name: member for member in archive}
    assert {"bin/ollama", "lib/ollama/llama-server", "lib/ollama/libgomp.so.1"} <= set(members)
    assert {(m.uid, m.gid) for m in members.values()} == {(0, 0)}
    assert members["bin/ollama"].mode == members["lib/ollama/llama-server"].mode == 0o755


def test_a_given_release_is_served_instead(tmp_path: Path) -> None:
    binary = tmp_path / "bin" / "ollama"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\necho Warning: client version is 9.8.7\n")
    binary.chmod(0o755)
    tarball = tmp_path / "any.tar.zst"
    subprocess.run(["tar", "--zstd", "-cf", tarball, "-C", tmp_path, "./bin"], check=True)
    root = tmp_path / "work" / "root"
    root.mkdir(parents=True)
    found = release.adopt(root, tarball)
    served = root / "ollama/ollama/releases/download/v9.8.7/ollama-linux-amd64.tar.zst"
    assert found.version == "9.8.7"
    assert served.read_bytes() == tarball.read_bytes()
    assert found.sha256 == hashlib.sha256(tarball.read_bytes()).hexdigest()


def test_registry_protocol(registry: str) -> None:
    root = f"http://{registry}/v2/library/gpt-oss"
    answer = requests.get(f"{root}/manifests/20b", timeout=10)
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    assert answer.headers["Content-Type"] == kind
    digests = [hashlib.sha256(answer.content).hexdigest()]
    digests.append(
        hashlib.sha256(requests.get(f"{root}/manifests/120b", timeout=10).content).hexdigest()
    )
    assert len(set(digests)) == 2
    latest = requests.get(f"{root}/manifests/latest", timeout=10)
    assert latest.content == answer.content
    config = answer.json()["config"]
    path = f"/v2/library/gpt-oss/blobs/{config['digest']}"
    whole = requests.get(f"http://{registry}{path}", timeout=10)
    assert (whole.status_code, whole.headers["Location"]) == (200, path)
    assert "sha256:" + hashlib.sha256(whole.content).hexdigest() == config["digest"]
    head = requests.head(f"http://{registry}{path}", timeout=10)
    assert (head.headers["Content-Length"], head.content) == (str(config["size"]), b"")
    ranges = {
        "bytes=0-9": whole.content[:10],
        "bytes=10-": whole.content[10:],
        "bytes=-5": whole.content[-5:],
    }
    for header, want in ranges.items():
        part = requests.get(whole.url, headers={"Range": header}, timeout=10)
        assert (part.status_code, part.headers["Location"], part.content) == (206, path, want)
    beyond = requests.get(whole.url, headers={"Range": "bytes=999999-"}, timeout=10)
    assert beyond.status_code == 416


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/library/nope/manifests/latest", "MANIFEST_UNKNOWN"),
        (f"/v2/library/gpt-oss/blobs/sha256:{'0' * 64}", "BLOB_UNKNOWN"),
        ("/no/such/file", None),
        ("/../upstream.json", None),
        ("/%2e%2e/upstream.json", None),
    ],
)
def test_upstream_refuses(registry: str, path: str, code: str | None) -> None:
    connection = http.client.HTTPConnection(registry, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 404
    assert code is None or json.loads(body)["errors"][0]["code"] == code
    connection.close()
