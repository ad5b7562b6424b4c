"""Which TCP ports answer, seen from this machine: for hosts that are yours.

`python -m fleet.firewall.scan ADDRESS...` prints address to open ports, as JSON.
"""

from __future__ import annotations

import argparse
import errno
import json
import resource
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence

ALL_PORTS = range(1, 65536)
# Remote logins, file shares, databases, container engines, dashboards, model servers, exporters:
# what is found open by accident. The declared ports come on top.
WELL_KNOWN = (
    21, 22, 23, 25, 53, 80, 110, 111, 135, 139, 143, 389, 443, 445, 631, 873, 1433, 1521, 2049,
    2222, 2375, 2376, 2377, 2379, 3000, 3128, 3306, 3389, 4000, 4040, 4317, 4318, 4369, 5000,
    5001, 5003, 5044, 5432, 5601, 5672, 5900, 5985, 6006, 6333, 6334, 6379, 6443, 7474, 7687,
    7860, 7946, 8000, 8001, 8080, 8081, 8082, 8086, 8088, 8123, 8188, 8194, 8200, 8265, 8434,
    8443, 8500, 8501, 8787, 8888, 9000, 9001, 9090, 9091, 9093, 9100, 9113, 9200, 9300, 9400,
    9443, 9835, 9999, 10250, 10255, 11211, 11434, 15672, 19530, 26379, 27017, 50051,
)  # fmt: skip

_UNDECIDED = (errno.EINPROGRESS, errno.EAGAIN)
_NO_WAY = (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EINVAL, errno.EAFNOSUPPORT)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ScanError(Exception):
    """This machine cannot scan an address at all: silence would prove nothing."""


def scan(
    addresses: Sequence[str],
    ports: Iterable[int] = ALL_PORTS,
    *,
    rate: float = 1000,
    timeout: float = 2.5,
) -> dict[str, set[int]]:
    """Address to those of `ports` that accept a connection.

    `rate` is connections a second, over all addresses. A port that says nothing for `timeout`
    seconds is closed; above 1, a lost packet was sent again in that time.

    Raises:
        ScanError: there is no route to an address from here.
    """
    attempts = _Attempts(addresses, timeout)
    # Address by address for each port, so that no host gets all of the rate at once.
    targets = deque((address, port) for port in ports for address in addresses)
    room = _room()
    began = time.monotonic()
    started = 0
    try:
        while targets or attempts.waiting:
            due = (time.monotonic() - began) * rate + 1
            while targets and attempts.waiting < room and started < due:
                attempts.start(*targets.popleft())
                started += 1
            attempts.gather()
    finally:
        attempts.close()
    return attempts.found


class _Attempts:
    """Connections that were begun and have no answer yet."""

    def __init__(self, addresses: Sequence[str], timeout: float) -> None:
        self.found: dict[str, set[int]] = {address: set() for address in addresses}
        self._timeout = timeout
        self._poller = select.epoll()
        self._by_descriptor: dict[int, tuple[socket.socket, str, int]] = {}
        # In the order of their ends, for the timeout is the same for all.
        self._ends: deque[tuple[float, int, socket.socket]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._by_descriptor)

    def start(self, address: str, port: int) -> None:
        connection, code = _connect(address, port)
        if code not in _UNDECIDED:
            connection.close()
            if code == 0:
                self.found[address].add(port)
            return
        descriptor = connection.fileno()
        self._by_descriptor[descriptor] = (connection, address, port)
        self._poller.register(descriptor, select.EPOLLOUT)
        self._ends.append((time.monotonic() + self._timeout, descriptor, connection))

    def gather(self) -> None:
        """Take the answers that are there, and give up on what is past its end."""
        for descriptor, _ in self._poller.poll(0.005, 4096):
            connection, address, port = self._by_descriptor.pop(descriptor)
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                self.found[address].add(port)
            connection.close()
        while self._ends and self._ends[0][0] < time.monotonic():
            _, descriptor, connection = self._ends.popleft()
            # An answered one is gone, and its number may be a later connection's by now.
            if self._by_descriptor.get(descriptor, (None,))[0] is connection:
                del self._by_descriptor[descriptor]
                connection.close()

    def close(self) -> None:
        for connection, _, _ in self._by_descriptor.values():
            connection.close()
        self._poller.close()


def _connect(address: str, port: int) -> tuple[socket.socket, int]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    code = connection.connect_ex((address, port))
    if code in _NO_WAY:
        connection.close()
        raise ScanError(f"{address}: {errno.errorcode[code]}: no way there from this machine")
    return connection, code


def _room() -> int:
    """How many connections may wait at once: the limit of open files, less what else is open."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 16384 if hard == resource.RLIM_INFINITY else min(hard, 16384)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most - 128


def main(arguments: list[str] | None = None) -> int:
    """Scan and print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fleet.firewall.scan", description=__doc__)
    parser.add_argument("addresses", nargs="+", metavar="ADDRESS")
    parser.add_argument("--rate", type=float, default=1000, help="connections a second")
    parser.add_argument("--timeout", type=float, default=2.5, help="seconds for an answer")
    options = parser.parse_args(arguments)
    try:
        found = scan(options.addresses, rate=options.rate, timeout=options.timeout)
    except ScanError as error:
        parser.exit(1, f"{error}\n")
    json.dump({address: sorted(ports) for address, ports in found.items()}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
