"""What a proxy adds to the time to the first byte: the ways are asked one request after another.

So all of them meet the same other work on the machine, which is more than what is measured.
"""

import json
import socket
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.bench_gateway import backend, empty, proxies, workers
from lab.bench_gateway.goals import Row, at_most, differences, ratios, told
from lab.bench_gateway.proxies import MODEL
from lab.state import LabError

_REQUESTS = 600  # of each way in a round; nginx ends a connection after 1000


@dataclass
class _Way:
    """A port, and of each round: ms to half of the answers and to 99 of 100, and processor time."""

    port: int
    key: str
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    cost: list[float] = field(default_factory=list)  # us of the workers a request

    def seconds(self) -> float:
        """Processor time of its workers so far."""
        return workers.seconds(proxies.folder_of(self.port))


def measure(rounds: int) -> list[Row]:
    """No proxy, a bare one, and the gateway with few keys and with many."""
    few, many = empty.key(empty.FEW), empty.key(empty.MANY)
    direct, bare, ours, with_many = ways = [
        _Way(backend.PORT, few),
        _Way(empty.BARE, few),
        _Way(empty.FEW, few),
        _Way(empty.MANY, many),
    ]
    for number in range(rounds):
        _round([*ways[number % len(ways) :], *ways[: number % len(ways)]])
    return [
        at_most("added to the first byte, p50", 0.2, differences(ours.p50, direct.p50), " ms"),
        at_most("added to the first byte, p99", 2, differences(ours.p99, direct.p99), " ms"),
        told("... p50, by a bare proxy_pass", differences(bare.p50, direct.p50), " ms"),
        told("... p99, by a bare proxy_pass", differences(bare.p99, direct.p99), " ms"),
        at_most(
            "processor time of a request, 500 keys / 5 keys",
            1.02,
            ratios(with_many.cost, ours.cost),
        ),
        told("... time to the first byte, p50, the same", ratios(with_many.p50, ours.p50)),
    ]


def _request(key: str) -> bytes:
    """A short chat that is new each time: NUMBER in it has eight digits."""
    said = f"{'x' * 400} NUMBER00"
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": said}]})
    return (
        f"POST {backend.WHOLE} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _round(ways: Sequence[_Way]) -> None:
    """Ask all of them many times, one after another."""
    found: list[list[float]] = [[] for _ in ways]
    clients = [socket.create_connection(("127.0.0.1", way.port)) for way in ways]
    requests = [_request(way.key) for way in ways]
    before = [way.seconds() for way in ways]
    for number in range(_REQUESTS):
        for client, request, times in zip(clients, requests, found, strict=True):
            text = request.replace(b"NUMBER00", b"%08d" % number)
            start = time.perf_counter()
            client.sendall(text)
            head = client.recv(65536)
            times.append((time.perf_counter() - start) * 1000)
            _rest(client, head)
    for way, client, begun, times in zip(ways, clients, before, found, strict=True):
        client.close()
        percentiles = statistics.quantiles(times, n=100)
        way.p50.append(percentiles[49])
        way.p99.append(percentiles[98])
        way.cost.append((way.seconds() - begun) / _REQUESTS * 1e6)


def _rest(client: socket.socket, answer: bytes) -> None:
    """Read on to the end of the answer, however its length is told."""
    if not answer.startswith(b"HTTP/1.1 200"):
        raise LabError(f"not answered: {answer.decode()}")
    while not _is_whole(answer):
        answer += client.recv(65536)


def _is_whole(answer: bytes) -> bool:
    head, _, body = answer.partition(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return len(body) == int(length) if length else body.endswith(b"\r\n0\r\n\r\n")
