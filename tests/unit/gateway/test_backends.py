"""Servers that are not ours behind the gateway's own nginx: what they get, and what clients see."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from fleet.gateway import tls
from tests.unit.gateway.running import CHAT, Connection, Running, error, running
from tests.unit.lab.vllm.standing_in import Vllm, serving, until

NAME = "far.example.com"
FAR = {**CHAT, "model": "far:1b"}
OPENAI, MESSAGES, NATIVE = "/v1/chat/completions", "/v1/messages", "/api/chat"
VALUE = "sk-proj-1._~+/=:"


class Foreign:
    """A server that is not ours: it answers what it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.models = ["real/far-1b", "other"]
        self.answer = (200, "application/json", b'{"choices":[],"model":"real/far-1b"}')
        self.headers: dict[str, str] = {}  # more of them, of its answers
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.looks: list[tuple[str, dict[str, str]]] = []
        self.list_status = 200
        self.port = 0

    @contextmanager
    def listening(self, context: ssl.SSLContext | None = None) -> Iterator[Foreign]:
        server = _Server(("127.0.0.1", self.port), type("Of", (_Handler,), {"foreign": self}))
        self.port = server.server_address[1]
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Connections end as they like here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    foreign: Foreign

    def do_GET(self) -> None:
        foreign = self.foreign
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        if self.command == "GET":
            foreign.looks.append((self.path, headers))
            listed = {"data": [{"id": name, "root": "/disk"} for name in foreign.models]}
            self._say(foreign.list_status, "application/json", json.dumps(listed).encode())
            return
        foreign.seen.append((self.path, headers, body))
        self._say(*foreign.answer)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def _say(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in self.foreign.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _backend(port: int, **other: Any) -> dict[str, Any]:
    return {
        "name": "far", "address": f"http://127.0.0.1:{port}", "key": "far",
        "models": {"far:1b": "real/far-1b"}, **other,
    }  # fmt: skip


@contextmanager
def gateway_to(*backends: dict[str, Any], **more: Any) -> Iterator[Running]:
    with (
        tempfile.TemporaryDirectory() as directory,
        running(
            Path(directory), {"gateway_backend_far": VALUE}, gateway_backends=backends, **more
        ) as gateway,
    ):
        yield gateway


@pytest.fixture(scope="module")
def far() -> Iterator[tuple[Foreign, Running]]:
    with Foreign().listening() as foreign, gateway_to(_backend(foreign.port)) as gateway:
        until(lambda: foreign.looks)
        yield foreign, gateway


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vllm, Running]]:
    flags = ("--served-model-name", "served:1b", "real/far-1b", "--max-num-queued-reqs", "1")
    slow = {"LAB_VLLM_TOKENS_PER_SECOND": "50", "LAB_VLLM_OVERFLOW": "200"}
    with serving(tmp_path_factory.mktemp("vllm"), *flags, **slow) as server:
        surfaces = ["openai", "anthropic"]
        with gateway_to(_backend(server.port, surfaces=surfaces, key=None)) as gateway:
            until(lambda: _seen(gateway).get("far", {}).get("well"))
            yield server, gateway


def _seen(gateway: Running) -> dict[str, Any]:
    """What looks said, by server."""
    with _status(gateway) as link:
        link.request("GET", "/servers")
        return {item["name"]: item for item in json.loads(link.getresponse().read())}


@contextmanager
def _status(gateway: Running) -> Iterator[HTTPConnection]:
    link = Connection(gateway.directory / "status.sock")
    try:
        yield link
    finally:
        link.close()


def _logged(gateway: Running, number: str) -> dict[str, Any]:
    """The log's entry of a request."""
    until(lambda: number in [item["id"] for item in gateway.log()])
    return next(item for item in gateway.log() if item["id"] == number)


class TestWhatItGets:
    def test_the_request_by_its_own_name_with_its_own_key(
        self, far: tuple[Foreign, Running]
    ) -> None:
        foreign, gateway = far
        status, _, _ = gateway.post(
            OPENAI, FAR, Cookie="a=b", **{"X-Own": "1", "Anthropic-Beta": "x"}
        )
        assert status == 200
        path, headers, body = foreign.seen[-1]
        assert path == OPENAI
        assert json.loads(body) == {**FAR, "model": "real/far-1b"}
        assert headers["authorization"] == f"Bearer {VALUE}"
        assert headers["host"] == f"127.0.0.1:{foreign.port}"
        # Of the caller's own nothing but what the API needs.
        assert set(headers) <= {
            "authorization", "host", "content-length", "content-type", "accept", "anthropic-beta",
        }  # fmt: skip

    def test_looks_have_the_key(self, far: tuple[Foreign, Running]) -> None:
        path, headers = far[0].looks[-1]
        assert (path, headers["authorization"]) == ("/v1/models", f"Bearer {VALUE}")

    def test_its_headers_stay_there(self, far: tuple[Foreign, Running]) -> None:
        foreign, gateway = far
        foreign.headers = {"Set-Cookie": "a=b", "openai-organization": "ours", "Retry-After": "7"}
        _, headers, _ = gateway.post(OPENAI, FAR)
        assert headers.keys().isdisjoint({"set-cookie", "openai-organization"})
        assert headers["retry-after"] == "7"
        foreign.headers = {}

    def test_it_is_listed_by_the_name_that_clients_use(self, far: tuple[Foreign, Running]) -> None:
        gateway = far[1]
        listed = json.loads(gateway.call("GET", "/v1/models", "plain")[2])["data"]
        assert [item for item in listed if "far" in item["id"]] == [
            {"id": "far:1b", "object": "model", "created": 0, "owned_by": "real"}
        ]
        one = gateway.call("GET", "/v1/models/far:1b", "plain")
        assert (one[0], json.loads(one[2])["id"]) == (200, "far:1b")
        # What it has besides is nobody's to ask for.
        assert gateway.call("GET", "/v1/models/other", "plain")[0] == 404
        tags = json.loads(gateway.call("GET", "/api/tags", "plain")[2])["models"]
        assert not [item for item in tags if "far" in item["name"]]

    def test_it_is_none_of_the_hosts_that_admins_manage(self, far: tuple[Foreign, Running]) -> None:
        gateway = far[1]
        assert gateway.post("/hosts/far/api/pull", {"model": "x"}, "ops")[0] == 404
        assert gateway.call("GET", "/hosts/far/api/tags", "ops")[0] == 404

    def test_the_log_has_its_name_and_the_clients_for_the_model(
        self, far: tuple[Foreign, Running]
    ) -> None:
        foreign, gateway = far
        usage = {"prompt_tokens": 3, "completion_tokens": 4}
        foreign.answer = (200, "application/json", json.dumps({"usage": usage}).encode())
        entry = _logged(gateway, gateway.post(OPENAI, FAR)[1]["x-request-id"])
        assert (entry["model"], entry["host"]) == ("far:1b", "far")
        assert (entry["prompt_tokens"], entry["completion_tokens"]) == (3, 4)


class TestOtherApis:
    @pytest.mark.parametrize(
        ("path", "instead"),
        [
            ("/api/chat", OPENAI), ("/api/generate", "/v1/completions"),
            ("/api/embed", "/v1/embeddings"), ("/api/show", "/v1/models/<name>"),
        ],
    )  # fmt: skip
    def test_ollamas_is_told_what_to_use(
        self, far: tuple[Foreign, Running], path: str, instead: str
    ) -> None:
        foreign, gateway = far
        asked = len(foreign.seen)
        answer = gateway.post(path, {"model": "far:1b"})
        assert answer[0] == 400
        said = error(answer)
        assert isinstance(said, str)
        assert said.endswith(f"use {instead}")
        assert len(foreign.seen) == asked

    def test_anthropics_is_told_in_its_own_shape(self, far: tuple[Foreign, Running]) -> None:
        answer = far[1].post(MESSAGES, {**FAR, "max_tokens": 5})
        assert answer[0] == 400
        assert json.loads(answer[2])["type"] == "error"
        assert OPENAI in error(answer)["message"]

    def test_a_key_that_may_not_use_it_learns_nothing(self) -> None:
        keys = ["plain", {"name": "narrow", "models": ["gpt-oss:20b"]}]
        with (
            Foreign().listening() as foreign,
            gateway_to(_backend(foreign.port), gateway_keys=keys) as gateway,
        ):
            for path in (OPENAI, NATIVE):
                assert gateway.post(path, FAR, "narrow")[0] == 404


SHAPES = {
    "object": b'{"error":{"message":"too long","type":"T","param":"input","code":400}}',
    "detail": b'{"detail":"too long"}',
    "list": b'{"detail":[{"loc":["body"],"msg":"too long","type":"x"}]}',
    "text": b'{"error":"too long"}',
    "message": b'{"object":"error","message":"too long","code":400}',
    "plain": b"too long\n",
}


class TestErrors:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("path", [OPENAI, MESSAGES])
    def test_have_the_shape_of_the_api_that_was_called(self, shape: str, path: str) -> None:
        surfaces = ["openai", "anthropic"]
        with (
            Foreign().listening() as foreign,
            gateway_to(_backend(foreign.port, surfaces=surfaces)) as gateway,
        ):
            foreign.answer = (422, "text/plain; charset=utf-8", SHAPES[shape])
            status, headers, body = gateway.post(path, {**FAR, "max_tokens": 5})
        assert (status, headers["content-type"].partition(";")[0]) == (422, "application/json")
        said = json.loads(body)
        assert said["error"]["message"] == "too long"
        assert (said.get("type") == "error") is (path == MESSAGES)
        if path == OPENAI and shape == "object":
            assert body == SHAPES[shape]

    def test_a_page_is_no_error_for_programs(self, far: tuple[Foreign, Running]) -> None:
        foreign, gateway = far
        foreign.answer = (500, "text/html; charset=UTF-8", b"<html>secret inside</html>")
        status, _, body = gateway.post(OPENAI, FAR)
        assert (status, b"secret" in body) == (500, False)
        assert json.loads(body)["error"]["message"]

    @pytest.mark.parametrize("status", [401, 403, 407])
    def test_our_wrong_key_is_not_the_callers(
        self, far: tuple[Foreign, Running], status: int
    ) -> None:
        foreign, gateway = far
        foreign.answer = (status, "application/json", b'{"error":"key sk-123 is wrong"}')
        answer = gateway.post(OPENAI, FAR)
        assert answer[0] == 502
        assert "does not let this gateway in" in error(answer)["message"]
        assert b"sk-123" not in answer[2]
        assert "www-authenticate" not in answer[1]
        assert f"it answers {status}" in (gateway.directory / "error.log").read_text()

    @pytest.mark.parametrize(("told", "seen"), [({}, "5"), ({"Retry-After": "30"}, "30")])
    def test_a_full_one_says_when_to_come_again(
        self, far: tuple[Foreign, Running], told: dict[str, str], seen: str
    ) -> None:
        foreign, gateway = far
        foreign.answer, foreign.headers = (503, "application/json", b'{"error":"busy"}'), told
        answer = gateway.post(OPENAI, FAR)
        foreign.headers = {}
        assert (answer[0], answer[1]["retry-after"]) == (503, seen)
        assert json.loads(answer[2])["error"]["message"] == "busy"


_PART = {
    OPENAI: {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]},
    MESSAGES: {"type": "content_block_delta", "delta": {"text": "a"}},
    "/v1/responses": {"type": "response.output_text.delta", "delta": "a"},
}
_FAILED = {
    OPENAI: {"error": {"message": "busy", "code": 503}},
    MESSAGES: {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
    "/v1/responses": {"type": "response.failed", "response": {"error": {"message": "busy"}}},
}


@pytest.mark.parametrize("path", _PART)
def test_a_stream_that_fails_counts_what_came(path: str) -> None:
    surfaces = ["openai", "anthropic"]
    with (
        Foreign().listening() as foreign,
        gateway_to(_backend(foreign.port, surfaces=surfaces)) as gateway,
    ):
        for parts, tokens in ((0, None), (2, 2)):
            events = [*[_PART[path]] * parts, _FAILED[path]]
            text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
            foreign.answer = (200, "text/event-stream", text.encode())
            body = {**FAR, "stream": True, "max_tokens": 9, "input": "x"}
            status, headers, seen = gateway.post(path, body)
            assert (status, seen.decode()) == (200, text)
            entry = _logged(gateway, headers["x-request-id"])
            assert entry["completion_tokens"] == tokens
            assert entry["host"] == ("far" if parts else "")


class TestTrouble:
    def test_one_that_is_gone_is_its_own_trouble(self) -> None:
        foreign = Foreign()
        foreign.models = ["near:1b"]
        with (
            foreign.listening(),
            gateway_to(
                _backend(1), _backend(foreign.port, name="near", models=["near:1b"])
            ) as gateway,
        ):
            until(lambda: _seen(gateway)["far"].get("well") is False)
            assert "no connection" in _seen(gateway)["far"]["why"]
            assert gateway.post(OPENAI, FAR)[0] == 503
            assert gateway.post(OPENAI, {**FAR, "model": "near:1b"})[0] == 200
            assert gateway.post(NATIVE, CHAT)[0] == 200

    def test_one_that_is_lost_within_a_request_is_502(self) -> None:
        foreign = Foreign()
        with foreign.listening():
            gateway_ = gateway_to(_backend(foreign.port, health="/alive"))
            gateway = gateway_.__enter__()
            until(lambda: _seen(gateway)["far"].get("well"))
        try:
            answer = gateway.post(OPENAI, FAR)
            assert answer[0] in (502, 503)
            assert error(answer)["message"]
        finally:
            gateway_.__exit__(None, None, None)

    def test_a_key_that_it_refuses_is_told_by_looks(self) -> None:
        foreign = Foreign()
        foreign.list_status = 401
        with foreign.listening(), gateway_to(_backend(foreign.port)) as gateway:
            until(lambda: _seen(gateway)["far"].get("well") is False)
            assert _seen(gateway)["far"]["why"] == "it answers /v1/models with status 401"

    def test_a_path_of_its_own_tells_that_it_is_well(self) -> None:
        foreign = Foreign()
        foreign.models = []
        with foreign.listening(), gateway_to(_backend(foreign.port, health="/up")) as gateway:
            until(lambda: foreign.looks)
            assert foreign.looks[0][0] == "/up"
            until(lambda: _seen(gateway)["far"].get("well"))
            # Its models are the declared ones.
            assert gateway.post(OPENAI, FAR)[0] == 200

    def test_a_model_that_it_lacks_gets_no_requests(self) -> None:
        foreign = Foreign()
        foreign.models = ["something/else"]
        with foreign.listening(), gateway_to(_backend(foreign.port)) as gateway:
            until(lambda: _seen(gateway)["far"].get("well"))
            until(lambda: gateway.post(OPENAI, FAR)[0] == 503)
            assert foreign.seen == []

    def test_a_name_without_an_address_keeps_nothing_from_starting(self) -> None:
        with gateway_to(_backend(1, address="http://nowhere.invalid")) as gateway:
            until(lambda: _seen(gateway)["far"].get("well") is False)
            assert gateway.post(NATIVE, CHAT)[0] == 200


class TestTls:
    @pytest.mark.parametrize(
        ("tls_name", "own_ca", "is_well"),
        [(NAME, True, True), ("other.example.com", True, False), (NAME, False, False)],
    )
    def test_its_certificate_is_verified(
        self, tmp_path: Path, tls_name: str, own_ca: bool, is_well: bool
    ) -> None:
        with gateway_to() as other:
            store = other.fleet.secrets
            certificate, key = tls.issued(store, "far", [NAME], [NAME])
            (tmp_path / "ca.pem").write_text(tls.ca_certificate(store, [NAME]))
        (tmp_path / "chain.pem").write_text(certificate + key.get_secret_value())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "chain.pem")
        names: list[str] = []
        context.sni_callback = lambda _, name, __: names.append(name)
        foreign = Foreign()
        ca = {"ca": "ca.pem"} if own_ca else {}
        with foreign.listening(context):
            address = f"https://127.0.0.1:{foreign.port}"
            backend = _backend(foreign.port, address=address, tls_name=tls_name, **ca)
            with gateway_to(backend, root=tmp_path) as gateway:
                until(lambda: "well" in _seen(gateway)["far"])
                assert _seen(gateway)["far"]["well"] is is_well
                assert set(names) == {tls_name}
                if is_well:
                    assert gateway.post(OPENAI, FAR)[0] == 200
                else:
                    # Not even the key was sent.
                    assert (foreign.seen, foreign.looks) == ([], [])


class TestVllm:
    def test_the_answer_names_the_model_as_the_server_does(
        self, vllm: tuple[Vllm, Running]
    ) -> None:
        whole = json.loads(vllm[1].post(OPENAI, {**FAR, "max_tokens": 2})[2])
        assert whole["model"] == "served:1b"
        assert whole["usage"]["completion_tokens"] == 2

    def test_its_paths_stay_there(self, vllm: tuple[Vllm, Running]) -> None:
        text = vllm[1].call("GET", "/v1/models", "plain")[2].decode()
        assert '"max_model_len":512' in text
        assert "model/" not in text
        assert "permission" not in text

    def test_messages(self, vllm: tuple[Vllm, Running]) -> None:
        status, _, body = vllm[1].post(MESSAGES, {**FAR, "max_tokens": 2})
        assert (status, json.loads(body)["type"]) == (200, "message")
        answer = vllm[1].post(MESSAGES, {**FAR, "max_tokens": 600})
        assert answer[0] == 400
        assert json.loads(answer[2])["type"] == "error"
        assert vllm[1].post("/v1/messages/count_tokens", FAR)[0] == 200

    def test_a_stream_that_says_it_is_full_is_no_answer(self, vllm: tuple[Vllm, Running]) -> None:
        server, gateway = vllm
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(30)
            link.connect(str(gateway.directory / "gateway.sock"))
            body = json.dumps({**FAR, "stream": True, "max_tokens": 400, "ignore_eos": True})
            key = gateway.keys["plain"]
            link.sendall(
                f"POST {OPENAI} HTTP/1.1\r\nHost: x\r\nx-api-key: {key}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            until(lambda: server.metric("num_requests_running") == 1)
            status, headers, text = gateway.post(OPENAI, {**FAR, "stream": True})
        assert status == 200
        assert b'"code":503' in text
        assert b"[DONE]" in text
        entry = _logged(gateway, headers["x-request-id"])
        assert (entry["prompt_tokens"], entry["host"]) == (None, "")
        assert "before it had begun" in (gateway.directory / "error.log").read_text()

    def test_abort_stays_what_it_is(self, vllm: tuple[Vllm, Running]) -> None:
        server, gateway = vllm
        until(lambda: server.metric("num_requests_running") == 0)
        ended: list[bytes] = []
        body = {**FAR, "stream": True, "max_tokens": 400, "ignore_eos": True}
        thread = threading.Thread(target=lambda: ended.append(gateway.post(OPENAI, body)[2]))
        thread.start()
        until(lambda: server.metric("num_requests_running") == 1)
        time.sleep(0.1)
        server.process.terminate()
        thread.join()
        assert b'"finish_reason":"abort"' in ended[0]
        assert b"[DONE]" in ended[0]
