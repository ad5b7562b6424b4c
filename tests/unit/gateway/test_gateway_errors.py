"""What the gateway itself answers, in the dialect of the path."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.running import CHAT, PLAIN, Running, error, running


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as gateway:
        yield gateway


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "key", "status", "kind"),
        [
            ("POST /v1/chat/completions", "", 401, "authentication_error"),
            ("GET /v1/nothing", "plain", 404, "not_found_error"),
            ("GET /v1/chat/completions", "plain", 405, "invalid_request_error"),
            ("POST /hosts/gpu1/v1/models", "ops", 404, "not_found_error"),
            ("GET /", "sk-wrong", 401, "authentication_error"),
        ],
    )
    def test_openai(self, gateway: Running, call: str, key: str, status: int, kind: str) -> None:
        answer = gateway.call(*call.split(), key)
        said = error(answer)
        assert (answer[0], said["type"], set(said)) == (
            status, kind, {"message", "type", "param", "code"},
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("call", "key", "status", "kind"),
        [
            ("POST /v1/messages", "", 401, "authentication_error"),
            ("GET /v1/messages", "plain", 405, "invalid_request_error"),
            ("GET /v1/messages/batches", "plain", 404, "not_found_error"),
            ("POST /v1/messages/count_tokens", "", 401, "authentication_error"),
        ],
    )
    def test_anthropic(self, gateway: Running, call: str, key: str, status: int, kind: str) -> None:
        answer = gateway.call(*call.split(), key)
        said = error(answer)
        assert json.loads(answer[2])["type"] == "error"
        assert (answer[0], said["type"], set(said)) == (status, kind, {"message", "type"})

    @pytest.mark.parametrize(
        ("call", "key", "status"),
        [
            ("POST /api/chat", "", 401),
            ("POST /api/pull", "plain", 404),
            ("GET /api/chat", "plain", 405),
            ("GET /hosts/gpu1/api/ps", "plain", 403),
            ("GET /hosts/gpu1/api/pull", "ops", 405),
            ("GET /hosts/gpu9/api/ps", "ops", 404),
            ("GET /hosts/gpu1/one/api/ps", "", 401),
        ],
    )
    def test_ollama(self, gateway: Running, call: str, key: str, status: int) -> None:
        answer = gateway.call(*call.split(), key)
        assert answer[0] == status
        assert isinstance(error(answer), str)

    @pytest.mark.parametrize(
        ("text", "status"),
        [
            (b"GET /api/ta\x00gs HTTP/1.1\r\n\r\n", 400),
            (b"GET /api/tags HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
            (b"GET /api/tags HTTP/1.1\r\n\r\n", 400),
            (b"GET /api/tags HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 400),
            (b"GET /api/tags HTTP/9.1\r\nHost: a\r\n\r\n", 505),
            (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
            (b"POST /api/chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 501),
            (b"POST /api/chat HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
            (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            (b"TRACE /api/tags HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ],
    )
    def test_what_nginx_refuses_itself(self, gateway: Running, text: bytes, status: int) -> None:
        head, body = gateway.raw(text).split(b"\r\n\r\n", 1)
        assert re.match(rb"HTTP/1\.[01] (\d+)", head)[1] == str(status).encode(), head
        assert b"\r\nContent-Type: application/json\r\n" in head
        said = json.loads(body)["error"]
        assert isinstance(said, str) == (b"/api/" in text.split(b"\r\n")[0]), said

    def test_head_has_no_body(self, gateway: Running) -> None:
        status, headers, body = gateway.call("HEAD", "/v1/models", "")
        assert (status, headers["content-type"], body) == (401, "application/json", b"")

    @pytest.mark.parametrize(
        "answer",
        [
            (404, "text/plain", b"404 page not found"),
            (400, "application/json; charset=utf-8", b'{"error":"model is required"}'),
            (500, "application/json", b'{"error":{"message":"x"}}'),
        ],
    )
    def test_what_the_server_says_stays(self, gateway: Running, answer: Any) -> None:
        gateway.answer = answer
        status, headers, body = gateway.post("/v1/messages/count_tokens", CHAT)
        gateway.answer = (200, "application/json", b"{}")
        assert (status, headers["content-type"], body) == answer

    def test_a_request_that_hosts_are_lost_over_goes_to_no_third(self, gateway: Running) -> None:
        gateway.seen.clear()
        gateway.answer = None
        answer = gateway.post("/v1/completions", PLAIN)
        gateway.answer = (200, "application/json", b"{}")
        assert (answer[0], error(answer)["message"]) == (502, "no host can answer now")
        assert len(gateway.seen) == 2

    def test_limits_of_a_key(self) -> None:
        """429 in each dialect, too; and a gateway without any host behind it says 502."""
        keys = [{"name": "plain", "rate": "1/m", "burst": 0}]
        with (
            tempfile.TemporaryDirectory() as directory,
            running(Path(directory), gateway_keys=keys) as gateway,
        ):
            (gateway.directory / "backend.sock").unlink()
            answer = gateway.post("/api/chat", CHAT)
            assert (answer[0], error(answer)) == (502, "no host can answer now")
            assert "more requests than" in error(gateway.post("/api/chat", CHAT))
            assert error(gateway.post("/v1/messages", CHAT))["type"] == "rate_limit_error"
            assert gateway.post("/v1/completions", PLAIN)[0] == 429
