"""What the tests of the upstream start, and always kill."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.upstream import Upstream, prepare, release
from tests.lab.upstream.odd_registry import Oddity
from tests.lab.upstream.rig import CACHE, MODEL, Lab, Server, free_port, reachable, until

IDLE_CHILD = """#!/usr/bin/python3 -I
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Healthy(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Healthy).serve_forever()
"""


@pytest.fixture(scope="session")
def upstream() -> Upstream:
    return prepare(CACHE)


@pytest.fixture(scope="session")
def registry(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the upstream as the lab does; the value is HOST:PORT."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "lab.upstream", "--root", upstream.root, "--listen", address]
    log = tmp_path_factory.mktemp("registry") / "log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out) as process:
        try:
            until(lambda: reachable(address), "the upstream listens")
            yield address
        finally:
            process.terminate()


@pytest.fixture(scope="session")
def base(upstream: Upstream, registry: str, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Unpack the release and pull the models once, through the stand-in itself."""
    folder = tmp_path_factory.mktemp("lab")
    tarball = release.folder(upstream.root, upstream.ollama_version) / release.TARBALL
    tree = folder / "release"
    tree.mkdir()
    subprocess.run(["tar", "--zstd", "-xf", tarball, "-C", tree], check=True)
    lab = Lab(tree, folder / "store", folder)
    server = lab.start(seed=False)
    try:
        for short in (MODEL, "tiny"):
            far = f"{registry}/library/{short}"
            answer = server.ask("/api/pull", {"model": far, "insecure": True})
            assert answer == (200, {"status": "success"})
            names = {"source": far, "destination": short}
            assert server.call("/api/copy", names).status_code == 200
            assert server.call("/api/delete", {"model": far}, "DELETE").status_code == 200
    finally:
        lab.stop()
    server.models.rename(lab.store)
    return lab


@pytest.fixture(scope="session")
def shared(base: Lab) -> Iterator[Server]:
    """A server for the tests that leave it as it was."""
    lab = Lab(base.release, base.store, base.folder / "shared")
    try:
        yield lab.start()
    finally:
        lab.stop()


@pytest.fixture
def lab(base: Lab, tmp_path: Path) -> Iterator[Lab]:
    """Start servers of one's own."""
    lab = Lab(base.release, base.store, tmp_path)
    try:
        yield lab
    finally:
        lab.stop()


@pytest.fixture
def idle(base: Lab, tmp_path: Path) -> Path:
    """A release whose child answers health and nothing else: loads are instant."""
    return _release(base, tmp_path / "idle", IDLE_CHILD)


@pytest.fixture
def gated(base: Lab, tmp_path: Path) -> Path:
    """A release whose child loads its model once there is a file `open` beside the release."""
    real = base.release / "lib" / "ollama" / "llama-server"
    wait = f"while [ ! -e {tmp_path}/open ]; do sleep 0.05; done"
    return _release(base, tmp_path / "gated", f'#!/bin/sh\n{wait}\nexec {real} "$@"\n')


def _release(base: Lab, tree: Path, child: str) -> Path:
    (tree / "lib" / "ollama").mkdir(parents=True)
    (tree / "bin").mkdir()
    (tree / "bin" / "ollama").hardlink_to(base.release / "bin" / "ollama")
    program = tree / "lib" / "ollama" / "llama-server"
    program.write_text(child)
    program.chmod(0o755)
    return tree


@pytest.fixture(scope="session")
def cold(base: Lab) -> Iterator[Server]:
    """A server without cloud models, for requests that load nothing."""
    lab = Lab(base.release, base.store, base.folder / "cold")
    try:
        yield lab.start(OLLAMA_NO_CLOUD="1")
    finally:
        lab.stop()


@pytest.fixture
def oddity() -> Iterator[Callable[..., Oddity]]:
    made: list[Oddity] = []

    def make(**how: Any) -> Oddity:
        made.append(Oddity(**how))
        return made[-1]

    yield make
    for registry in made:
        registry.gate.set()
        registry.server.shutdown()
        registry.server.server_close()
