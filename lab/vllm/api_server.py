"""What vLLM 0.32's API server was seen to say and do, without a model: standard library alone.

Its command line is vLLM's, and it runs as `python3 -m vllm.entrypoints.openai.api_server` where the
files of this folder lie in a package of that name, here as `python3 -m lab.vllm.api_server`.
README.md says what it keeps and lacks, and which variables (LAB_VLLM_...) have it misbehave.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .api import BUSY, CHAT, Api, tokens_of
from .dialects import VERSION, Completions, Dialect, Messages, Responses, usage_of
from .engine import Engine, RefusedError
from .flags import arguments

# Paths that need the key, by how they begin.
GUARDED = ("/v1", "/v2", "/inference", "/cohere")


def _window(flags: argparse.Namespace) -> tuple[int, bool]:
    """The context that is served, and whether the model thinks aloud, by the model's own config."""
    config = json.loads((Path(flags.model) / "config.json").read_text())
    most = int(config.get("max_position_embeddings", 131072))
    length = flags.max_model_len or most
    if length > most:
        raise ValueError(
            f"User-specified max_model_len ({length}) is greater than the derived max_model_len "
            f"({most})"
        )
    return length, "GptOssForCausalLM" in config.get("architectures", [])


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_DELETE = do_OPTIONS = do_HEAD = do_GET  # noqa: N815 - http.server's names

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self._body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        keys = self.server.keys
        allowed = [f"Bearer {key}" for key in keys]
        if keys and path.startswith(GUARDED) and self.headers.get("Authorization") not in allowed:
            return self._say(401, {"error": "Unauthorized"})
        found = self.server.paths.get(path)
        if found is None:
            return self._say(404, {"detail": "Not Found"})
        method, answer = found
        if self.command != method:
            return self._say(405, {"detail": "Method Not Allowed"})
        try:
            answer(self)
        except RefusedError as error:
            self._say(error.status, error.body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def asked(self) -> dict[str, Any]:
        try:
            asked = json.loads(self._body)
        except ValueError as error:
            raise RefusedError(
                400, f"[{{'type': 'json_invalid', 'msg': 'JSON decode error: {error}'}}]"
            ) from None
        if not isinstance(asked, dict):
            raise RefusedError(
                400, "[{'type': 'model_attributes_type', 'msg': 'Input should be an object'}]"
            )
        return asked

    def say(self, content: Any) -> None:
        self._say(200, content)

    def _say(self, status: int, content: Any, kind: str = "application/json") -> None:
        text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
        data = text.encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", kind)
        self._common_headers()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def text(self, content: str) -> None:
        self._say(200, content, "text/plain; version=0.0.4; charset=utf-8")

    def health(self) -> None:
        self._say(503 if self.server.engine.is_dead else 200, "")

    def _common_headers(self) -> None:
        if self.headers.get("Connection", "").lower() == "close":
            self.send_header("Connection", "close")
        if self.server.flags.enable_request_id_headers and (
            number := self.headers.get("X-Request-Id")
        ):
            self.send_header("X-Request-Id", number)

    def infer(self, path: str, dialect: type[Dialect], prefix: str) -> None:
        server, asked = self.server, self.asked()
        prompt, most, natural = server.api.judged(path, asked)
        number = (
            self.headers.get("X-Request-Id") if server.flags.enable_request_id_headers else None
        )
        writer = dialect(
            server.api.names[0], f"{prefix}{number or time.time_ns()}", asked, server.api.thinks
        )
        streamed = bool(asked.get("stream"))
        with server.engine.place() as has_place:
            if not has_place:
                server.api.refuses_late(streamed)
                self._events()
                self._event(RefusedError(503, BUSY, "ServiceUnavailableError").body)
                self._end(writer)
                return
            words = server.engine.made(prompt, most, natural)
            answer = self._stream if streamed else self._whole
            answer(writer, words, prompt, server.api.tool(asked))

    def _whole(self, writer: Dialect, words: Iterator[str], prompt: int, call: Any) -> None:
        said, reason = _all(words, lambda _: None)
        self.say(writer.whole(" ".join(said), reason, usage_of(prompt, len(said)), call))

    def _stream(self, writer: Dialect, words: Iterator[str], prompt: int, call: Any) -> None:
        first = next(words, None)  # errors until here are answers of their own
        self._events()
        try:
            self._tell(writer, words, prompt, call, first)
        except RefusedError as error:
            self._event(error.body)
        self._end(writer)

    def _tell(
        self, writer: Dialect, words: Iterator[str], prompt: int, call: Any, first: str | None
    ) -> None:
        for event in writer.begin(prompt):
            self._event(event)

        def part(word: str) -> None:
            for event in [] if call else writer.part(word):
                self._event(event)

        said: list[str] = []
        reason = "abort"
        if first:
            part(first)
            said, reason = _all(words, lambda word: part(f" {word}"))
            said.insert(0, first)
        for event in writer.end(" ".join(said), reason, usage_of(prompt, len(said)), call):
            self._event(event)

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self._common_headers()
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, event: dict[str, Any]) -> None:
        name = f"event: {event['type']}\n" if "type" in event else ""
        self._chunk(f"{name}data: {json.dumps(event, separators=(',', ':'))}\n\n")

    def _end(self, writer: Dialect) -> None:
        if writer.is_done_told:
            self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def address_string(self) -> str:
        return str(self.client_address[0]) if self.client_address else "unix"


def _all(words: Iterator[str], part: Any) -> tuple[list[str], str]:
    said: list[str] = []
    while True:
        try:
            word = next(words)
        except StopIteration as end:
            return said, str(end.value)
        part(word)
        said.append(word)


def _paths(api: Api, engine: Engine) -> dict[str, tuple[str, Any]]:
    def infer(path: str, dialect: type[Dialect], prefix: str) -> tuple[str, Any]:
        return "POST", lambda handler: handler.infer(path, dialect, prefix)

    return {
        "/health": ("GET", Handler.health),
        "/ping": ("GET", Handler.health),
        "/version": ("GET", lambda handler: handler.say({"version": VERSION})),
        "/load": ("GET", lambda handler: handler.say({"server_load": handler.server.shown_load})),
        "/metrics": ("GET", lambda handler: handler.text(metrics(api, engine))),
        "/v1/models": ("GET", lambda handler: handler.say(api.models())),
        **{path: infer(path, Dialect, "chatcmpl-") for path in CHAT},
        "/v1/completions": infer("/v1/completions", Completions, "cmpl-"),
        "/v1/responses": infer("/v1/responses", Responses, "resp_"),
        "/v1/messages": infer("/v1/messages", Messages, "msg_"),
        "/v1/messages/count_tokens": (
            "POST", lambda handler: handler.say({"input_tokens": tokens_of(handler.asked())}),
        ),
        "/tokenize": ("POST", lambda handler: handler.say(_tokenized(api, handler.asked()))),
        "/detokenize": ("POST", lambda handler: handler.say({"prompt": "one"})),
    }  # fmt: skip


def _tokenized(api: Api, asked: dict[str, Any]) -> dict[str, Any]:
    count = tokens_of(asked)
    return {
        "count": count,
        "max_model_len": api.length,
        "tokens": list(range(count)),
        "token_strs": None,
    }


def metrics(api: Api, engine: Engine) -> str:
    """What /metrics says: the numbers that were seen to move."""
    counts, name = engine.counts, api.names[0]
    labels = f'engine="0",model_name="{name}"'
    numbers = {
        "num_requests_running": engine.running,
        "num_requests_waiting": engine.waiting,
        "kv_cache_usage_perc": min(1.0, engine.running / 100),
        "prompt_tokens_total": counts["prompt"],
        "generation_tokens_total": counts["generation"],
        "iteration_tokens_total_count": counts["iterations"],
        "num_preemptions_total": 0,
    }
    lines = [f"vllm:{key}{{{labels}}} {value}" for key, value in numbers.items()]
    for reason in ("stop", "length", "abort"):
        number = counts[f"success:{reason}"]
        lines.append(f'vllm:request_success_total{{{labels},finished_reason="{reason}"}} {number}')
    lines.append(
        f'vllm:admission_rejections_total{{{labels},reason="queue_full"}} {counts["rejected"]}'
    )
    return "\n".join([*lines, ""])


class Server(ThreadingHTTPServer):
    """Listens at the port, or at the socket file."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, flags: argparse.Namespace, api: Api, engine: Engine) -> None:
        self.flags, self.api, self.engine = flags, api, engine
        self.keys = flags.api_key or [key for key in [os.environ.get("VLLM_API_KEY")] if key]
        self.paths = _paths(api, engine)
        if flags.uds:
            self.address_family = socket.AF_UNIX
        elif ":" in flags.host:
            self.address_family = socket.AF_INET6
        where = flags.uds or (flags.host, flags.port)
        super().__init__(where, Handler, bind_and_activate=False)

    @property
    def shown_load(self) -> int:
        return self.engine.taken if self.flags.enable_server_load_tracking else 0

    def server_bind(self) -> None:
        if self.flags.uds:
            # What was left of one before.
            Path(self.flags.uds).unlink(missing_ok=True)
            self.socket.bind(self.flags.uds)
        else:
            super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        request, address = super().get_request()
        return request, address or ("unix", 0)


def _end_on_sigterm(server: Server) -> None:
    """What running streams and new requests see of SIGTERM, and when the process ends."""

    def end() -> None:
        engine, timeout = server.engine, server.flags.shutdown_timeout
        engine.is_ending = True
        if timeout == 0:
            engine.is_aborting = True
        ends = time.monotonic() + (timeout if timeout and engine.taken else 0)
        # Streams that end sooner make it no sooner: the worker does not heed it.
        while time.monotonic() < ends or (
            engine.is_aborting and engine.taken and not engine.is_dead
        ):
            time.sleep(0.05)
        time.sleep(0.2)
        os._exit(0)

    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=end, daemon=True).start())


def main(argv: list[str]) -> None:
    """Serve as the command line says; does not return."""
    flags = arguments(argv)
    length, thinks = _window(flags)
    # While it starts, it does not heed SIGTERM.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    engine = Engine(flags.max_num_seqs, flags.max_num_queued_reqs)
    server = Server(flags, Api(flags, engine, length, thinks), engine)
    if flags.uds:
        server.server_bind()  # long before it is ready: who connects is refused until then
    time.sleep(float(os.environ.get("LAB_VLLM_READY_AFTER", "0.5")))
    if not flags.uds:
        server.server_bind()
    server.server_activate()
    threading.Thread(target=engine.watch, daemon=True).start()
    _end_on_sigterm(server)
    sys.stderr.write("INFO:     Application startup complete.\n")
    server.serve_forever(0.1)


if __name__ == "__main__":
    main(sys.argv[1:])
