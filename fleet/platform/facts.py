"""What a host says of itself."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase, StringCommand
from typing_extensions import override

from fleet.kit.on_host.outside import counted


@dataclass(frozen=True)
class Clock:
    """The host's time in seconds since 1970, and whether something keeps it right.

    `is_kept` is None where systemd does not tell.
    """

    time: float = 0.0
    is_kept: bool | None = None


class HostClock(FactBase[Clock]):
    """What time it is on the host."""

    default = Clock

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            "date +%s.%N; timedatectl show -p NTPSynchronized --value 2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> Clock:
        whole, _, part = output[0].partition(".")
        kept = {"yes": True, "no": False}.get(output[1].strip() if len(output) > 1 else "")
        return Clock((counted(whole) or 0) + (counted(part[:9]) or 0) / 1e9, kept)


class HasIpv6(FactBase[bool]):
    """Whether the kernel knows IPv6 at all: booted with `ipv6.disable=1` it does not."""

    @override
    @staticmethod
    def default() -> bool:
        return False

    @override
    def command(self) -> str:
        return "if [ -d /proc/sys/net/ipv6/conf ]; then echo yes; else echo no; fi"

    @override
    def process(self, output: list[str]) -> bool:
        return output == ["yes"]


class HostAddresses(FactBase[list[str]]):
    """The host's own IP addresses, without prefix lengths."""

    default = list

    @override
    def command(self) -> StringCommand:
        return StringCommand('ip -o addr show | awk \'{ sub("/.*", "", $4); print $4 }\'')

    @override
    def process(self, output: list[str]) -> list[str]:
        return output
