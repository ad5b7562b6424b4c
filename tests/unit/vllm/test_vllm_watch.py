"""What a watch takes for a server that works, for one that starts, and for a frozen one.

Against answers over HTTP; the lab freezes the engine of a server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import vllm_watch as watch

START, LIMIT = 60.0, 0.5


class Engine:
    """What the server is to say: of its health, its one token, and its counters."""

    def __init__(self, **said: Any) -> None:
        self.health = said.get("health", 200)
        self.answer = said.get(
            "answer", (200, {"choices": [{}], "usage": {"completion_tokens": 1}})
        )
        self.hangs = said.get("hangs", False)
        self.moves = said.get("moves", False)
        self.ended = threading.Event()
        self.tokens = 1000


@contextmanager
def served(engine: Engine) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                self._say(engine.health, b"")
                return
            engine.tokens += engine.moves
            text = (
                "# TYPE vllm:generation_tokens counter\n"
                f'vllm:generation_tokens_total{{engine="0",model_name="x y"}} {engine.tokens}.0\n'
                "vllm:other_total 5\n"
            )
            self._say(200, text.encode())

        def do_POST(self) -> None:
            if engine.hangs:
                engine.ended.wait(30)
            status, body = engine.answer
            self._say(status, json.dumps(body).encode())

        def _say(self, status: int, body: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # who asked has gone

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        engine.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def state(engine: Engine, since: float | None = 100.0) -> str:
    with served(engine) as url:
        said: str = watch.state_of(watch.Server(url, "m"), lambda: since, START, LIMIT)
        return said


def test_one_token_is_life() -> None:
    assert state(Engine()) == "works"


def test_healthy_engine_that_makes_no_token_is_frozen() -> None:
    said = state(Engine(hangs=True))
    assert said.startswith("no token in ")
    assert said.endswith("its counters stand still")


def test_busy_one_works() -> None:
    """It answers too late, and its counters move."""
    assert state(Engine(hangs=True, moves=True)) == "works"


def test_full_queue_of_one_that_works() -> None:
    assert state(Engine(answer=(503, {"error": {}}), moves=True)) == "works"


def test_full_queue_of_a_frozen_one() -> None:
    said = state(Engine(answer=(503, {"error": {}})))
    assert said == "it refuses a request for one token, and its counters stand still"


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"error": {"message": "no"}}, []])
def test_answer_of_another_form_is_no_token(body: Any) -> None:
    assert "refuses" in state(Engine(answer=(200, body)))


@pytest.mark.parametrize("since", [1.0, START - 1])
def test_starting_one_is_left_alone(since: float) -> None:
    server = watch.Server("http://127.0.0.1:1", "m")
    assert watch.state_of(server, lambda: since, START, LIMIT) == "starting"
    assert state(Engine(health=503), since) == "starting"


def test_one_that_never_comes_up_is_started_again() -> None:
    server = watch.Server("http://127.0.0.1:1", "m")
    said = watch.state_of(server, lambda: START + 1, START, LIMIT)
    assert said.endswith("61 s after its start")


def test_stopped_one_is_left_alone() -> None:
    assert state(Engine(), None) == "not running"


def test_one_that_ends_while_it_is_asked_is_systemds() -> None:
    """It was up when the watch came, and was stopped while it waited for the token."""
    engine = Engine(hangs=True)
    told = iter([100.0])
    with served(engine) as url:
        server = watch.Server(url, "m")
        counted, calls = server.counted, iter([True])

        def once() -> float:
            if next(calls, False):
                return float(counted())
            raise OSError("refused")

        server.counted = once
        said = watch.state_of(server, lambda: next(told, None), START, LIMIT)
    assert said == "not running"
