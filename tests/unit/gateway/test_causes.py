"""`fleet chat` says what was in the way, by what really happens on a socket."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest

from fleet.gateway import tls
from fleet.gateway.causes import Asked, cause_of
from fleet.kit.secrets import SecretStore

MODEL = "gpt-oss:20b"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def told(
    url: str, verify: Any = True, timeout: float = 5, model: str = MODEL, proxy: Any = None
) -> str:
    """What is said of a chat that fails."""
    with openai.DefaultHttpxClient(verify=verify, proxy=proxy) as http_client:
        client = openai.OpenAI(
            base_url=f"{url}/v1", api_key="k", max_retries=0, timeout=timeout,
            http_client=http_client,
        )  # fmt: skip
        with pytest.raises(openai.OpenAIError) as caught:
            list(
                client.chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "?"}], stream=True
                )
            )
    asked = Asked(url, "inventory/prod.py", proxy, "team-a", model, (MODEL, "embed"), (MODEL,))
    text = cause_of(caught.value, asked)
    assert text.startswith(f"{url}: ")
    return text


@contextmanager
def server(
    answer: Callable[[http.server.BaseHTTPRequestHandler], None], context: Any = None
) -> Iterator[int]:
    """An HTTP server on 127.0.0.1, with TLS by `context`; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer(self)

        do_CONNECT = do_POST  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients that hang up are what is tested."""

    running = Server(("127.0.0.1", 0), Handler)
    if context:
        running.socket = context.wrap_socket(running.socket, server_side=True)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield running.server_port
    finally:
        running.shutdown()
        running.server_close()


def status(number: int) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(number)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"{}")

    return answer


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (401, "does not know this value of the key 'team-a' (401)"),
        (403, "`allow_from` and `role`"),
        (407, "the proxy wants a login"),
        (429, "`rate` or `concurrent`"),
        (502, "no GPU host behind it does (502): `fleet status inventory/prod.py`"),
        (503, "no GPU host that is to have gpt-oss:20b takes a request just now (503)"),
        (504, "gateway_read_timeout"),
        (418, "it answered 418"),
    ],
)
def test_status_of_the_answer(number: int, said: str) -> None:
    with server(status(number)) as port:
        assert said in told(f"http://127.0.0.1:{port}")


def test_model_that_is_not_there() -> None:
    with server(status(404)) as port:
        assert "which is declared (404): deploy inventory" in told(f"http://127.0.0.1:{port}")
        unknown = told(f"http://127.0.0.1:{port}", model="lama:3")
        forbidden = told(f"http://127.0.0.1:{port}", model="Embed:latest")
    assert "lama:3 (404), and it is not declared; declared are gpt-oss:20b, embed" in unknown
    assert "'team-a' may not use the model Embed:latest (404): it may use gpt-oss:20b" in forbidden


def test_name_without_an_address() -> None:
    text = told("https://no-such-host.invalid:8434")
    # Without any DNS server, nobody can say whether it exists.
    assert "no-such-host.invalid" in text
    assert "DNS" in text


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "127.0.0.1 refuses the connection" in told(f"http://127.0.0.1:{port}")


def test_connection_without_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        text = told(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.5)
    assert "it takes connections and does not answer in time" in text


def test_packets_that_are_dropped() -> None:
    """A backlog that is full answers no connection, as a firewall does that drops."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        waiting = []
        for _ in range(3):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        text = told(f"http://127.0.0.1:{port}", timeout=0.5)
        for one in waiting:
            one.close()
    assert "no answer to the connection (timeout)" in text


def test_hangs_up() -> None:
    with server(lambda handler: handler.connection.close()) as port:
        assert "no gateway, or hung up" in told(f"http://127.0.0.1:{port}")


class TestCertificates:
    @pytest.fixture
    def store(self, tmp_path: Path) -> SecretStore:
        return SecretStore(tmp_path / "store")

    def context(self, store: SecretStore, tmp_path: Path, names: list[str]) -> ssl.SSLContext:
        certificate, key = tls.issued(store, "edge", names, [*names, "127.0.0.1"])
        pem = tmp_path / "server.pem"
        pem.write_text(certificate + key.get_secret_value())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        return context

    def trust(self, store: SecretStore, names: list[str]) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=tls.ca_certificate(store, names))

    def test_of_another_authority(self, store: SecretStore, tmp_path: Path) -> None:
        with server(status(200), self.context(store, tmp_path, ["127.0.0.1"])) as port:
            text = told(f"https://127.0.0.1:{port}")
        assert "of an authority that is not trusted here" in text

    def test_for_another_name(self, store: SecretStore, tmp_path: Path) -> None:
        with server(status(200), self.context(store, tmp_path, ["edge"])) as port:
            trust = self.trust(store, ["edge", "127.0.0.1"])
            assert "not for 127.0.0.1: add that" in told(f"https://127.0.0.1:{port}", trust)
            assert "not for localhost: add that" in told(f"https://localhost:{port}", trust)

    @pytest.mark.parametrize(
        ("shift", "said"), [(-900, "has ended"), (900, "of the future")], ids=["ended", "future"]
    )
    def test_of_another_time(
        self,
        store: SecretStore,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        shift: int,
        said: str,
    ) -> None:
        class Then(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime.now(UTC) + timedelta(days=shift)

        trust = self.trust(store, ["127.0.0.1"])
        monkeypatch.setattr(tls, "datetime", Then)
        with server(status(200), self.context(store, tmp_path, ["127.0.0.1"])) as port:
            trust.load_verify_locations(cadata=tls.ca_certificate(store, ["127.0.0.1"]))
            assert said in told(f"https://127.0.0.1:{port}", trust)

    def test_no_tls_at_all(self) -> None:
        with server(status(200)) as port:
            assert "does not speak TLS there" in told(f"https://127.0.0.1:{port}")


class TestProxies:
    def test_that_refuses(self) -> None:
        with server(status(403)) as port:
            proxy = f"http://127.0.0.1:{port}"
            text = told("https://llm.example.com:443", proxy=proxy)
        assert "the proxy does not lead there" in text
        assert "name llm.example.com in NO_PROXY" in text
        assert text.endswith(f"Asked through the proxy {proxy} of this machine's environment.")

    def test_that_is_not_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            proxy = f"http://127.0.0.1:{taken.getsockname()[1]}"
        text = told("https://llm.example.com:443", proxy=proxy)
        assert f"the proxy {proxy} refuses the connection" in text
