"""Who listens on a host's TCP ports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.render import host_program

WHO_LISTENS = host_program("kit", "who-listens")


@dataclass(frozen=True)
class Listener:
    """A listening TCP socket, and whose it is; empty texts where nobody's or not known.

    `address` is None for a socket of both families, on all addresses. `container` is the one that
    Docker holds the port for, `project` what Compose calls its stack.
    """

    address: IPv4Address | IPv6Address | None
    port: int
    pid: str = ""
    program: str = ""
    unit: str = ""
    container: str = ""
    project: str = ""

    def is_in_the_way(self, address: str, port: int) -> bool:
        """Whether nobody else can listen on `address` (`0.0.0.0` and `::` are all) and `port`."""
        if port != self.port:
            return False
        wanted = ip_address(address)
        if self.address is None:
            return True
        if wanted.version != self.address.version:
            return False
        return wanted.is_unspecified or self.address.is_unspecified or wanted == self.address

    @property
    def holders(self) -> tuple[str, ...]:
        """What can be said of who has it: the container and its stack, or the unit."""
        # Docker's own unit says nothing of a container.
        own = (self.container, self.project) if self.container else (self.unit,)
        return tuple(name for name in own if name)

    def is_of(self, patterns: Iterable[str]) -> bool:
        """Whether one of the shell `patterns` is who has it."""
        return any(fnmatchcase(name, item) for name in self.holders for item in patterns)

    def __str__(self) -> str:
        """`nginx (process 812 of nginx.service)`, or the container that it is held for."""
        if self.container:
            return f"the container {self.container}"
        if not self.pid:
            return "the kernel"
        return f"{self.program} (process {self.pid}{f' of {self.unit}' if self.unit else ''})"


class Listeners(FactBase[tuple[Listener, ...]]):
    """Every listening TCP socket of the host."""

    default = tuple

    @override
    def command(self) -> StringCommand:
        return StringCommand("sh -c", QuoteString(WHO_LISTENS))

    @override
    def process(self, output: list[str]) -> tuple[Listener, ...]:
        return tuple(_listener(line) for line in output)


def _listener(line: str) -> Listener:
    where, *rest = line.split("|", 5)
    address, _, port = where.rpartition(":")
    # `127.0.0.53%lo`, `[fe80::1]%eth0`, `[::]`, and `*` for both families.
    text = address.split("%")[0].strip("[]")
    return Listener(None if text == "*" else ip_address(text), int(port), *rest)
