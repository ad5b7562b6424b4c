"""Requests and tokens by key, for Prometheus, counted from the gateway's access log as it grows.

    python3 gateway_metrics.py LOG ADDRESS PORT

Counts from its own start on, as Prometheus expects of a counter. Standard library only.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
# Seconds until the first token, and tokens a second, by model.
FIRST_TOKEN = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
SPEED = (1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 400.0, 1000.0)
TOKENS = ("prompt", "cached", "completion")
# Paths that clients may use; all others are one, or a scanner would make a series of each.
PATHS = re.compile(
    r"/v1/(chat/completions|completions|embeddings|responses|messages(/count_tokens)?|models)"
    r"|/api/(chat|generate|embed|embeddings|show|ps|tags|version)"
)
HOST_PATHS = re.compile(r"/hosts/.+(/api/(?:pull|create|show|delete|ps|tags|version))")
POLL = 0.25  # seconds between two looks at the log


class Metrics:
    """The counters; one lock for the log's reader and the scrapes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._upstream: Counter[tuple[str, str]] = Counter()
        self._bytes: Counter[str] = Counter()
        self._unread = 0
        self._times: dict[str, dict[str, list[float]]] = {"duration": {}, "first_byte": {}}
        self._tokens: Counter[tuple[str, str, str, str]] = Counter()
        self._estimated: Counter[tuple[str, str, str]] = Counter()
        self._speeds: dict[str, dict[str, list[float]]] = {
            "first_token_seconds": {}, "tokens_per_second": {}
        }  # fmt: skip

    def count(self, line: str) -> None:
        """Count one line of the log; one that is not ours is counted as unread."""
        try:
            entry: dict[str, Any] = json.loads(line)
            key, status = str(entry["key"]), str(entry["status"])
            path, sent = _path(str(entry["path"])), int(entry["bytes"])
            duration = float(entry["duration"])
            # One value for each host that was tried; the last one answered.
            first_byte = str(entry["first_byte"]).replace(" : ", ", ").split(", ")[-1]
            upstream = str(entry["upstream"]).replace(" : ", ", ").split(", ")[-1]
            begun = float(first_byte) if first_byte not in ("", "-") else None
            took = _took(entry)
        except (ValueError, KeyError, TypeError):
            with self._lock:
                self._unread += 1
            return
        with self._lock:
            self._requests[key, path, status] += 1
            self._bytes[key] += sent
            _observe(self._times["duration"], key, duration, BUCKETS)
            if upstream:
                self._upstream[upstream, status] += 1
            if begun is not None:
                _observe(self._times["first_byte"], key, begun, BUCKETS)
            if took is not None:
                self._take(key, took)

    def _take(self, key: str, took: Took) -> None:
        for kind, number in took.tokens.items():
            self._tokens[key, took.model, took.host, kind] += number
        if took.is_estimated:
            self._estimated[key, took.model, took.host] += 1
        if took.first is not None:
            _observe(self._speeds["first_token_seconds"], took.model, took.first, FIRST_TOKEN)
        if took.speed is not None:
            _observe(self._speeds["tokens_per_second"], took.model, took.speed, SPEED)

    def text(self) -> str:
        """All of it in Prometheus's text format."""
        with self._lock:
            return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield "# TYPE llm_gateway_requests_total counter"
        for (key, path, status), number in sorted(self._requests.items()):
            yield f"llm_gateway_requests_total{_labels(key=key, path=path, status=status)} {number}"
        yield "# TYPE llm_gateway_upstream_requests_total counter"
        for (upstream, status), number in sorted(self._upstream.items()):
            labels = _labels(upstream=upstream, status=status)
            yield f"llm_gateway_upstream_requests_total{labels} {number}"
        yield "# TYPE llm_gateway_sent_bytes_total counter"
        for key, sent in sorted(self._bytes.items()):
            yield f"llm_gateway_sent_bytes_total{_labels(key=key)} {sent}"
        yield "# TYPE llm_gateway_unread_lines_total counter"
        yield f"llm_gateway_unread_lines_total {self._unread}"
        yield "# TYPE llm_gateway_tokens_total counter"
        for (key, model, host, kind), number in sorted(self._tokens.items()):
            labels = _labels(key=key, model=model, host=host, kind=kind)
            yield f"llm_gateway_tokens_total{labels} {number}"
        yield "# TYPE llm_gateway_estimated_requests_total counter"
        for (key, model, host), number in sorted(self._estimated.items()):
            labels = _labels(key=key, model=model, host=host)
            yield f"llm_gateway_estimated_requests_total{labels} {number}"
        for name, rows in self._times.items():
            yield from _histogram(f"llm_gateway_{name}_seconds", "key", rows, BUCKETS)
        for (name, rows), bounds in zip(self._speeds.items(), (FIRST_TOKEN, SPEED), strict=True):
            yield from _histogram(f"llm_gateway_{name}", "model", rows, bounds)


@dataclass
class Took:
    """What an answered request took of tokens and time."""

    model: str
    host: str
    tokens: dict[str, int]
    is_estimated: bool
    first: float | None
    speed: float | None


def _took(entry: dict[str, Any]) -> Took | None:
    """None where nothing was metered: of a request that no server answered, no name is kept."""
    if not entry.get("host") or entry.get("prompt_tokens") is None:
        return None
    first, speed = entry["first_token"], entry["tokens_per_second"]
    return Took(
        model=str(entry["model"]),
        host=str(entry["host"]),
        tokens={kind: int(entry[f"{kind}_tokens"] or 0) for kind in TOKENS},
        is_estimated=entry["estimated"] is True,
        first=None if first is None else float(first),
        speed=None if speed is None else float(speed),
    )


def _observe(
    rows: dict[str, list[float]], name: str, value: float, bounds: tuple[float, ...]
) -> None:
    # One count for each bucket, then all, then their sum.
    row = rows.setdefault(name, [0.0] * (len(bounds) + 2))
    for place, bound in enumerate(bounds):
        row[place] += value <= bound
    row[-2] += 1
    row[-1] += value


def _histogram(
    metric: str, label: str, rows: dict[str, list[float]], bounds: tuple[float, ...]
) -> Iterator[str]:
    yield f"# TYPE {metric} histogram"
    for name, row in sorted(rows.items()):
        for bound, below in zip((*map(str, bounds), "+Inf"), row, strict=False):
            yield f"{metric}_bucket{_labels(**{label: name, 'le': bound})} {below:.0f}"
        yield f"{metric}_count{_labels(**{label: name})} {row[-2]:.0f}"
        yield f"{metric}_sum{_labels(**{label: name})} {row[-1]:.6f}"


def _path(path: str) -> str:
    path = path.removesuffix("/")
    if path.startswith("/v1/models/"):
        return "/v1/models"
    if PATHS.fullmatch(path):
        return path
    host = HOST_PATHS.fullmatch(path)
    return f"/hosts/*{host[1]}" if host else "other"


def _labels(**values: str) -> str:
    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in values.items()) + "}"


def follow(path: Path) -> Iterator[str]:
    """Lines as they are appended to `path`, for ever; a rotated log is read to its end first."""
    first = True
    while True:
        try:
            file = path.open(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            first = False
            time.sleep(POLL)
            continue
        with file:
            if first:
                file.seek(0, os.SEEK_END)
                first = False
            part = ""
            while True:
                part += file.readline()
                if part.endswith("\n"):
                    yield part
                    part = ""
                    continue
                if _is_other(path, file.fileno()):
                    break
                time.sleep(POLL)


def _is_other(path: Path, descriptor: int) -> bool:
    """Whether `path` is now another file, or this one was cut short under its reader."""
    mine = os.fstat(descriptor)
    try:
        there = path.stat()
    except FileNotFoundError:
        return True
    return there.st_ino != mine.st_ino or there.st_size < os.lseek(descriptor, 0, os.SEEK_CUR)


def serve(metrics: Metrics, address: str, port: int) -> ThreadingHTTPServer:
    """A server that answers `GET /metrics`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = metrics.text().encode() if self.path == "/metrics" else b"see /metrics\n"
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Scrapes are not worth a line in the journal."""

    class Server(ThreadingHTTPServer):
        address_family = AF_INET6 if ":" in address else AF_INET
        daemon_threads = True

    return Server((address, port), Handler)


def main(log: str, address: str, port: str) -> None:
    """Serve the counts of `log` until the end."""
    metrics = Metrics()
    server = serve(metrics, address, int(port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for line in follow(Path(log)):
        metrics.count(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
