"""What nginx tells of itself on a gateway: what it is busy with, and which files it runs with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.declare.capability import Server
from fleet.declare.fleet import Endpoint, FleetHost
from fleet.gateway.files import loaded_files
from fleet.gateway.paths import GATEWAY_CONFIG, GATEWAY_ERRORS, GATEWAY_STATUS_SOCKET
from fleet.kit.on_host.outside import FormError, counted, parsed
from fleet.kit.units import Reload

_COUNTS = {...: int}
_ASK = StringCommand(
    "curl -fs --noproxy '*' --max-time 10 --unix-socket", QuoteString(GATEWAY_STATUS_SOCKET)
)
LOOK = StringCommand(
    _ASK,
    "http://x/in-flight && echo; ss -Htnp state established | grep '\"nginx\"' || true",
)
# One with the configuration of a release of before does not tell.
_GENERATION = StringCommand(
    "if grep -qF 'location = /generation '", GATEWAY_CONFIG,
    "; then", _ASK, "http://x/generation; else date +%s%N; fi",
)  # fmt: skip


def how_reloaded(me: FleetHost) -> Reload:
    """How nginx takes other files."""
    return Reload(tuple(loaded_files(me)), _GENERATION, GATEWAY_ERRORS)


@dataclass(frozen=True)
class Traffic:
    """What nginx is busy with at the moment.

    `in_flight` is the name of a server to its requests. None where nginx does not count them: that
    of a release of before, which the next deploy of the gateway replaces, had no count, and kept no
    connection to a server (`peers`) open between requests. `ports` are its own, with the number of
    their connections.
    """

    in_flight: Counter[str] | None
    peers: Counter[Endpoint]
    ports: Counter[int]

    def to(self, servers: Iterable[Server]) -> int:
        """How many requests these servers have from this gateway."""
        if self.in_flight is None:
            return sum(self.peers[item.endpoint] for item in servers)
        return sum(self.in_flight[item.name] for item in servers)


def traffic(lines: list[str]) -> Traffic | None:
    """What `LOOK` prints; None where it is not what nginx and `ss` say."""
    peers, ports = Counter[Endpoint](), Counter[int]()
    in_flight: Counter[str] | None = None
    for line in lines:
        words = line.split()
        if line.startswith("{"):
            try:
                in_flight = Counter(parsed(line, _COUNTS, "/in-flight"))
            except FormError:
                return None
        elif len(words) >= 5 and '"nginx"' in words[-1]:
            if (port := counted(words[2].rpartition(":")[2])) is not None:
                ports[port] += 1
            if (peer := _endpoint(words[3])) is not None:
                peers[peer] += 1
    return Traffic(in_flight, peers, ports)


def _endpoint(text: str) -> Endpoint | None:
    address, _, port = text.rpartition(":")
    if (number := counted(port)) is None:
        return None
    # An IPv4 peer of a socket for both families is written `[::ffff:10.0.0.1]`.
    return Endpoint(address.strip("[]").partition("%")[0].removeprefix("::ffff:"), number)


class NginxTraffic(FactBase[Traffic | None]):
    """What nginx is busy with on a gateway; None where it does not say."""

    @override
    @staticmethod
    def default() -> Traffic | None:
        return Traffic(None, Counter(), Counter())

    @override
    def command(self) -> StringCommand:
        return LOOK

    @override
    def process(self, output: list[str]) -> Traffic | None:
        return traffic(output)
