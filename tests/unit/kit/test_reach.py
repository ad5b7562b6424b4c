"""Whether a host reaches an upstream: by curl, and without curl as far as a shell can tell."""

from __future__ import annotations

import http.server
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.kit.facts.reach import FreeRoom, Reach, Reachable, SmallFile
from tests.unit.facts import ask


@pytest.fixture
def port() -> Iterator[int]:
    """An HTTP server's: `/sums` is there, and nothing else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            there = self.path == "/sums"
            self.send_response(200 if there else 404)
            self.send_header("Content-Length", "8" if there else "0")
            self.end_headers()
            if there and self.command == "GET":
                self.wfile.write(b"abc  x\ny")

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed() -> Iterator[int]:
    # Bound, so that nobody else gets it meanwhile, and not listening.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH with what every Debian has, and no curl."""
    for name in ("sh", "bash", "timeout", "getent", "env"):
        program = shutil.which(name)
        assert program
        (tmp_path / name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def reach(url: str, **environment: str) -> Reach:
    found: Reach = ask(Reachable(), url=url, environment=environment)
    return found


def test_by_http(port: int, closed: int) -> None:
    assert reach(f"http://127.0.0.1:{port}/sums") == Reach(200)
    assert reach(f"http://127.0.0.1:{port}/none") == Reach(404)
    assert "refuses the connection" in reach(f"http://127.0.0.1:{closed}/").why
    assert "does not speak TLS" in reach(f"https://127.0.0.1:{port}/").why
    assert "no address" in reach("http://no-such-host.invalid/").why


def test_by_a_proxy(port: int, closed: int) -> None:
    text = reach(f"https://127.0.0.1:{port}/", HTTPS_PROXY=f"http://127.0.0.1:{closed}").why
    assert "refuses the connection" in text


@pytest.mark.usefixtures("bare")
def test_without_curl(port: int, closed: int) -> None:
    assert reach(f"http://127.0.0.1:{port}/none") == Reach(by_http=False)
    assert "refuses" in reach(f"http://127.0.0.1:{closed}/").why
    assert "no address" in reach("https://no-such-host.invalid/").why
    # What will be asked is the proxy.
    assert reach("https://no-such-host.invalid/", HTTPS_PROXY=f"http://127.0.0.1:{port}") == Reach(
        by_http=False
    )


def test_small_file(port: int) -> None:
    assert ask(SmallFile(), url=f"http://127.0.0.1:{port}/sums", environment={}) == "abc  x\ny"
    assert ask(SmallFile(), url=f"http://127.0.0.1:{port}/none", environment={}) == ""


def test_room_where_a_directory_will_be(tmp_path: Path) -> None:
    paths = [f"{tmp_path}/not/yet there", "/"]
    found = ask(FreeRoom(), paths=paths)
    assert set(found) == set(paths)
    assert all(size > 0 for size in found.values())


@pytest.mark.parametrize("output", [["-"], ["x y z"], ["5"], ["", " "]])
def test_room_that_nobody_tells(output: list[str]) -> None:
    assert [size for path, size in FreeRoom().process(output).items() if path] == []


@pytest.mark.parametrize("output", [[], ["curl"], ["curl x"], ["x", "curl 0"], ["404", "curl 99"]])
def test_answers_of_no_form(output: list[str]) -> None:
    assert isinstance(Reachable().process(output), Reach)
