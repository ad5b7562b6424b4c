"""What a proxy adds to the time to the first byte: the ways are asked one request after another.

So all of them meet the same other work on the machine, which is more than what is measured.
"""

import json
import socket
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.bench_gateway import backend, empty
from lab.bench_gateway.goals import Row, at_most, differences, told
from lab.bench_gateway.proxies import MODEL
from lab.state import LabError

_REQUESTS = 600  # of each way in a round; nginx ends a connection after 1000


@dataclass
class _Way:
    """A port, and milliseconds of each round: to half of the answers, and to 99 of 100."""

    port: int
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)


def measure(rounds: int) -> list[Row]:
    """No proxy, a bare one, and the gateway."""
    direct, bare, ours = ways = [_Way(port) for port in (backend.PORT, empty.BARE, empty.FEW)]
    request = _request(empty.key())
    for _ in range(rounds):
        found = _round([way.port for way in ways], request)
        for way in ways:
            percentiles = statistics.quantiles(found[way.port], n=100)
            way.p50.append(percentiles[49])
            way.p99.append(percentiles[98])
    return [
        at_most("added to the first byte, p50", 0.2, differences(ours.p50, direct.p50), " ms"),
        at_most("added to the first byte, p99", 2, differences(ours.p99, direct.p99), " ms"),
        told("... p50, by a bare proxy_pass", differences(bare.p50, direct.p50), " ms"),
        told("... p99, by a bare proxy_pass", differences(bare.p99, direct.p99), " ms"),
    ]


def _request(key: str) -> bytes:
    """A short chat that is new each time: NUMBER in it has eight digits."""
    said = f"{'x' * 400} NUMBER00"
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": said}]})
    return (
        f"POST {backend.WHOLE} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _round(ports: Sequence[int], request: bytes) -> Mapping[int, list[float]]:
    """Milliseconds of each request, by port."""
    found: dict[int, list[float]] = {port: [] for port in ports}
    clients = {port: socket.create_connection(("127.0.0.1", port)) for port in ports}
    for number in range(_REQUESTS):
        text = request.replace(b"NUMBER00", b"%08d" % number)
        for port, client in clients.items():
            start = time.perf_counter()
            client.sendall(text)
            head = client.recv(65536)
            found[port].append((time.perf_counter() - start) * 1000)
            _rest(client, head)
    for client in clients.values():
        client.close()
    return found


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
