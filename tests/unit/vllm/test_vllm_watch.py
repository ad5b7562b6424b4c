"""What a watch takes for a server that works, for one that starts, and for a frozen one.

Against answers over HTTP; the lab freezes the engine of a server.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import vllm_watch as watch
from fleet.declare.fleet import PRODUCT_ROOT

FROZEN, SILENT, LIMIT = watch.FROZEN, watch.SILENT, 0.5


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


def state(engine: Engine) -> tuple[int, str]:
    with served(engine) as url:
        status, why = watch.state_of(watch.Server(url, "m"), LIMIT)
        return int(status), str(why)


def test_one_token_is_life() -> None:
    assert state(Engine()) == (0, "works")


def test_healthy_engine_that_makes_no_token_is_frozen() -> None:
    status, why = state(Engine(hangs=True))
    assert status == FROZEN
    assert why.startswith("no token in ")
    assert why.endswith("its counters stand still")


def test_busy_one_works() -> None:
    """It answers too late, and its counters move."""
    assert state(Engine(hangs=True, moves=True))[0] == 0


def test_full_queue_of_one_that_works() -> None:
    assert state(Engine(answer=(503, {"error": {}}), moves=True))[0] == 0


def test_full_queue_of_a_frozen_one() -> None:
    said = "it refuses a request for one token, and its counters stand still"
    assert state(Engine(answer=(503, {"error": {}}))) == (FROZEN, said)


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"error": {"message": "no"}}, []])
def test_answer_of_another_form_is_no_token(body: Any) -> None:
    assert state(Engine(answer=(200, body)))[0] == FROZEN


def test_one_that_is_not_healthy_or_not_there_is_silent() -> None:
    """... and not frozen: it may be starting."""
    assert state(Engine(health=503))[0] == SILENT
    assert watch.state_of(watch.Server("http://127.0.0.1:1", "m"), LIMIT)[0] == SILENT


def test_one_that_ends_while_it_is_asked_is_not_frozen() -> None:
    """It may be another process by now, which is starting."""
    with served(Engine(hangs=True)) as url:
        server = watch.Server(url, "m")
        counted, calls = server.counted, iter([True])

        def once() -> float:
            if next(calls, False):
                return float(counted())
            raise OSError("refused")

        server.counted = once
        assert watch.state_of(server, LIMIT)[0] == SILENT


class TestRestart:
    """What is done of what the watch has found, with a systemctl that says what it was told."""

    @staticmethod
    def told(folder: Path, status: str, since: float) -> list[str]:
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        tool = folder / "systemctl"
        tool.write_text(
            f'#!/bin/sh\n[ "$1" = show ] && echo {int((uptime - since) * 1e6)} && exit\n'
            f'echo "$@" >> {folder}/said\n'
        )
        tool.chmod(0o755)
        environment = {"PATH": f"{folder}:/usr/bin:/bin", "EXIT_STATUS": status}
        program = PRODUCT_ROOT / "fleet/vllm/on_host/vllm-restart"
        subprocess.run(["sh", program, "x.service", "600"], env=environment, check=True)
        said = folder / "said"
        return said.read_text().splitlines() if said.exists() else []

    @pytest.mark.parametrize(("status", "since"), [("3", 5.0), ("3", 9000.0), ("4", 9000.0)])
    def test_restarted(self, tmp_path: Path, status: str, since: float) -> None:
        said = self.told(tmp_path, status, since)
        assert said == ["--no-block try-restart x.service"]

    @pytest.mark.parametrize(("status", "since"), [("0", 9000.0), ("4", 5.0), ("1", 9000.0)])
    def test_left_alone(self, tmp_path: Path, status: str, since: float) -> None:
        assert self.told(tmp_path, status, since) == []
