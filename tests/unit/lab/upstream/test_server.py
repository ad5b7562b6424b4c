"""The lab's upstream does wrong what it is told to, and only that."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from lab.upstream.server import Server

CONTENT = bytes(range(256)) * 1000


class Upstream:
    """A served file, and its server's control."""

    def __init__(self, server: Server) -> None:
        self.url = f"http://127.0.0.1:{server.server_port}"

    def get(self, path: str = "/file", range_: str | None = None, timeout: float = 5) -> bytes:
        headers = {"Range": range_} if range_ else {}
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            content: bytes = answer.read()
            return content

    def order(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def faults(self, *faults: dict[str, Any]) -> None:
        self.order("PUT", "/_lab/faults", list(faults))


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    (tmp_path / "file").write_bytes(CONTENT)
    (tmp_path / "other").write_bytes(b"other")
    server = Server(tmp_path, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Upstream(server)
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_fault_without_an_order(upstream: Upstream) -> None:
    upstream.faults({"path": "/other", "status": 500})
    assert upstream.get() == CONTENT


def test_status_so_many_times(upstream: Upstream) -> None:
    upstream.faults({"path": "/file", "status": 500, "times": 2})
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError, match="500"):
            upstream.get()
    assert upstream.get() == CONTENT


def test_ranges_only(upstream: Upstream) -> None:
    upstream.faults({"path": "/file", "ranges": True, "serve": "/other"})
    assert upstream.get() == CONTENT
    assert upstream.get(range_="bytes=0-") == b"other"


def test_size(upstream: Upstream) -> None:
    upstream.faults({"path": "/file", "size": 1000})
    assert upstream.get() == CONTENT[:1000]


def test_wrong_bytes_of_the_right_length(upstream: Upstream) -> None:
    upstream.faults({"path": "/file", "wrong_at": 100_000})
    content = upstream.get()
    assert len(content) == len(CONTENT)
    wrong = [
        place for place, pair in enumerate(zip(content, CONTENT, strict=True)) if len(set(pair)) > 1
    ]
    assert wrong == list(range(100_000, 101_000))


def test_cut_at_an_offset_of_the_file(upstream: Upstream) -> None:
    upstream.faults({"path": "/file", "cut_at": 100_000})
    with pytest.raises(IncompleteRead) as cut:
        upstream.get(range_="bytes=50000-")
    assert cut.value.partial == CONTENT[50_000:100_000]


def test_rate(upstream: Upstream) -> None:
    upstream.faults({"path": "/file", "rate": 500_000})
    began = time.monotonic()
    assert upstream.get() == CONTENT
    assert 0.3 < time.monotonic() - began < 2


def test_stall_ends_with_its_fault(upstream: Upstream) -> None:
    upstream.faults({"path": "/file", "stall_at": 1000})
    with pytest.raises(TimeoutError):
        upstream.get(timeout=0.3)
    results: list[bytes] = []
    reader = threading.Thread(target=lambda: results.append(upstream.get()))
    reader.start()
    time.sleep(0.2)
    assert results == []
    upstream.faults()
    reader.join()
    assert results == [CONTENT]


def test_bytes_of_ranges_are_counted(upstream: Upstream) -> None:
    upstream.get()
    upstream.get(range_="bytes=100-")
    # The upstream counts what it has sent, which the reader may have before it.
    deadline = time.monotonic() + 10
    while (served := upstream.order("GET", "/_lab/served")) == {} and time.monotonic() < deadline:
        time.sleep(0.02)
    assert served == {"/file": len(CONTENT) - 100}
    upstream.order("DELETE", "/_lab/served")
    assert upstream.order("GET", "/_lab/served") == {}


def test_misspelt_fault_is_refused(upstream: Upstream) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        upstream.faults({"path": "/file", "stal_at": 1})
