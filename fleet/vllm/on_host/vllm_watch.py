#!/usr/bin/python3
"""Says whether a vLLM server works: 0 when it does, 3 when it is frozen, 4 when it is silent.

usage: vllm_watch.py --url URL --model NAME --timeout SECONDS

Its own `/health` says 200 for as long as the process lives, also when the engine has stopped for
ever. So it is asked for one token. A server that is busy may answer late, or refuse: it works for
as long as its counters of tokens move. One that does not say that it is healthy may be starting:
whoever knows since when decides. Standard library only.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import time
from urllib.parse import urlsplit

from common import log, say
from outside import FormError, parsed, read_all

FROZEN, SILENT = 3, 4
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


def state_of(server: Server, limit: float) -> tuple[int, str]:
    """0, FROZEN or SILENT, and why; it has `limit` seconds for one token."""
    try:
        if not server.is_healthy():
            return SILENT, "it does not say that it is healthy"
        before = server.counted()
    except (OSError, http.client.HTTPException, FormError) as error:
        return SILENT, f"it does not answer ({error})"
    end = time.monotonic() + limit
    try:
        if server.answers(limit):
            return 0, "works"
        refused = "it refuses a request for one token"
    except (OSError, http.client.HTTPException, FormError) as error:
        refused = f"no token in {limit:.0f} s ({error})"
    # A server that refuses at once is given the same time to do what it is busy with.
    while True:
        try:
            if server.counted() != before:
                return 0, "works, and is busy"
        except (OSError, http.client.HTTPException, FormError) as error:
            # It may have ended meanwhile, and been started again.
            return SILENT, f"{refused}, and no counters ({error})"
        if time.monotonic() >= end:
            return FROZEN, f"{refused}, and its counters stand still"
        time.sleep(1)


def main() -> int:
    """Judge the server that the arguments name."""
    parser = argparse.ArgumentParser()
    for name in ("url", "model"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--timeout", type=float, required=True)
    given = parser.parse_args()
    status, why = state_of(Server(given.url, given.model), given.timeout)
    (log if status else say)(why)
    return status


if __name__ == "__main__":
    sys.exit(main())
