"""What this machine's own programs ask without the proxy of its environment."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator

import openai
import pytest
import requests

from fleet.kit import proxy

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _office(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that leads nowhere, for everything."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, NOWHERE)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def url() -> Iterator[str]:
    """A server on a private address of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_private_address_is_asked_directly(url: str) -> None:
    """By either of the two HTTP clients that are used here."""
    with pytest.raises(requests.exceptions.ProxyError):
        requests.get(url, timeout=5)
    proxy.ask_directly_if_private(url)
    assert requests.get(url, timeout=5).status_code == 200
    with openai.DefaultHttpxClient() as client:
        assert client.get(url).status_code == 200
    assert proxy.proxy_of(url) is None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("[fd00::1]", "fd00::1"),
        ("localhost", "localhost"),
        ("93.184.216.34", ""),
        ("no-such-name.invalid", ""),
    ],
)
def test_what_is_private(host: str, expected: str) -> None:
    url = f"https://{host}:8434/v1"
    proxy.ask_directly_if_private(url)
    assert (os.environ["NO_PROXY"], os.environ["no_proxy"]) == (expected, expected)
    assert proxy.proxy_of(url) == (None if expected else NOWHERE)


@pytest.mark.parametrize(
    ("before", "after"), [("a.example, b", "a.example,b,10.0.0.1"), ("*", "*")]
)
def test_what_was_left_out_stays_so(
    before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", before)
    for _ in range(2):
        proxy.ask_directly_if_private("http://10.0.0.1:8434")
    assert os.environ["NO_PROXY"] == after
