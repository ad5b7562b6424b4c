#!/usr/bin/python3
"""Says whether a vLLM server still works: 0 when it does or is starting, 3 when it is frozen.

usage: vllm_watch.py --unit UNIT --url URL --model NAME --start SECONDS --timeout SECONDS

Its own `/health` says 200 for as long as the process lives, also when the engine has stopped for
ever. So it is asked for one token. A server that is busy may answer late, or refuse: it works for
as long as its counters of tokens move. One that does not say that it is healthy is starting, until
`--start` seconds have gone since systemd started it. Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from common import log, say
from outside import FormError, parsed, read_all

FROZEN = 3
_QUICK = 10  # seconds for what the server answers without its engine
_LIMIT = 4 << 20  # bytes of an answer
# What moves with every step of the engine, and with every answer.
_COUNTERS = (
    "vllm:iteration_tokens_total_count",
    "vllm:generation_tokens_total",
    "vllm:prompt_tokens_total",
)
_ANSWER = {"choices": [{}], "usage": {"completion_tokens": int}}


class Server:
    """A vLLM server's API. Calls raise OSError, or HTTPException, when it does not answer."""

    def __init__(self, url: str, model: str) -> None:
        self._where = urlsplit(url).netloc
        self._model = model

    def is_healthy(self) -> bool:
        """Whether it says that it is up."""
        status, _ = self._call("GET", "/health", None, _QUICK)
        return status == http.client.OK

    def counted(self) -> float:
        """Tokens that its engine has worked on, in a count that only has to move."""
        status, body = self._call("GET", "/metrics", None, _QUICK)
        if status != http.client.OK:
            raise http.client.HTTPException(f"/metrics answers {status}")
        return sum(map(_value, body.decode(errors="replace").splitlines()))

    def answers(self, seconds: float) -> bool:
        """Whether it makes one token in so many seconds."""
        body = {"model": self._model, "prompt": "Hello", "max_tokens": 1}
        status, said = self._call("POST", "/v1/completions", json.dumps(body), seconds)
        try:
            return status == http.client.OK and bool(parsed(said, _ANSWER)["choices"])
        except FormError:
            return False

    def _call(self, method: str, path: str, body: str | None, seconds: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._where, timeout=seconds)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, read_all(response, _LIMIT, seconds)
        finally:
            connection.close()


def _value(line: str) -> float:
    name = line.split("{", maxsplit=1)[0].split(" ", maxsplit=1)[0]
    try:
        return float(line.rsplit(" ", 1)[-1]) if name in _COUNTERS else 0.0
    except ValueError:
        return 0.0


def state_of(
    server: Server, running: Callable[[], float | None], start: float, limit: float
) -> str:
    """`works`, `starting`, `not running`, or in other words why it is frozen.

    `running` tells for how many seconds its unit has been active; None when it is not.
    """
    since = running()
    if since is None:
        return "not running"
    try:
        if not server.is_healthy():
            raise http.client.HTTPException("it does not say that it is healthy")
        before = server.counted()
    except (OSError, http.client.HTTPException, FormError) as error:
        return "starting" if since < start else f"{error}, {since:.0f} s after its start"
    end = time.monotonic() + limit
    try:
        if server.answers(limit):
            return "works"
        refused = "it refuses a request for one token"
    except (OSError, http.client.HTTPException, FormError) as error:
        refused = f"no token in {limit:.0f} s ({error})"
    # A server that refuses at once is given the same time to do what it is busy with.
    while True:
        try:
            if server.counted() != before:
                return "works"
        except (OSError, http.client.HTTPException, FormError) as error:
            # Ended meanwhile: systemd starts it again.
            return "not running" if running() is None else f"{refused}, and no counters ({error})"
        if time.monotonic() >= end:
            return f"{refused}, and its counters stand still"
        time.sleep(1)


def active_for(unit: str) -> float | None:
    """Seconds since systemd has started `unit`; None when it does not run."""
    shown = subprocess.run(
        ["systemctl", "show", "-p", "ActiveState", "-p", "ActiveEnterTimestampMonotonic", unit],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    values = dict(line.split("=", 1) for line in shown.splitlines())
    if values.get("ActiveState") != "active":
        return None
    now = float(Path("/proc/uptime").read_text().split()[0])
    return now - int(values["ActiveEnterTimestampMonotonic"]) / 1e6


def main() -> int:
    """Judge the server that the arguments name."""
    parser = argparse.ArgumentParser()
    for name in ("unit", "url", "model"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("start", "timeout"):
        parser.add_argument(f"--{name}", type=float, required=True)
    given = parser.parse_args()
    server = Server(given.url, given.model)
    state = state_of(server, lambda: active_for(given.unit), given.start, given.timeout)
    if state in ("works", "starting", "not running"):
        say(state)
        return 0
    log(f"{given.unit} is frozen and is restarted: {state}")
    return FROZEN


if __name__ == "__main__":
    sys.exit(main())
