"""The trial of a unit, with tools that say what was asked of them."""

from __future__ import annotations

import os
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from fleet.kit.render import host_program

UNIT = "llm-fleet-trial-x.service"


class Answering(BaseHTTPRequestHandler):
    """Answers 200 to `/ok` alone."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ok" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was asked of systemctl and journalctl; the unit's main process is this one."""
    log = tmp_path / "calls"
    systemctl = f"""\
case "$*" in
*MainPID*) echo {os.getpid()};;
*ActiveState*) cat {tmp_path}/state;;
*) echo "systemctl $*" >>{log};;
esac"""
    for name, text in {
        "systemctl": systemctl,
        "journalctl": f'echo "journalctl $*" >>{log}; echo evidence',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "state").write_text("active\n")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return log


def tried(path: str, seconds: int = 2) -> subprocess.CompletedProcess[str]:
    server = HTTPServer(("127.0.0.1", 0), Answering)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        return subprocess.run(
            ["sh", "-c", host_program("kit", "try-unit"), "try-unit", UNIT, str(seconds), path],
            capture_output=True, text=True, check=False, timeout=30,
        )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()


_ENDED = ["systemctl stop", "systemctl daemon-reload", "systemctl reset-failed"]


def test_ends_as_soon_as_it_answers(calls: Path) -> None:
    result = tried("/ok", seconds=20)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    words = [" ".join(line.split()[:2]) for line in calls.read_text().splitlines()]
    assert words == ["systemctl daemon-reload", "systemctl start", *_ENDED]


@pytest.mark.parametrize("state", ["active", "failed"])
def test_shows_its_journal_and_ends(calls: Path, state: str) -> None:
    """Whether it runs and does not answer, or has ended: then without waiting."""
    (calls.parent / "state").write_text(f"{state}\n")
    result = tried("/no", seconds=1 if state == "active" else 20)
    assert (result.returncode, result.stderr) == (1, "evidence\n")
    words = [" ".join(line.split()[:2]) for line in calls.read_text().splitlines()]
    assert words[-4:] == ["journalctl --no-pager", *_ENDED]
    assert f"-u {UNIT}" in calls.read_text()
