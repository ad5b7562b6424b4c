"""What a host says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class Archives:
    """The servers that apt asks: name to whether it has an address on the host.

    With `by_proxy` it is a proxy that looks for them.
    """

    names: dict[str, bool] = field(default_factory=dict)
    by_proxy: bool = False


class AptArchives(FactBase[Archives]):
    """Whether the host's DNS knows the servers in its apt sources, the first five of them."""

    default = Archives

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            "[ -z \"$(apt-config dump 2>/dev/null | grep -iE '^Acquire::https?::Proxy ')\" ]"
            " || echo proxy;"
            " cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list"
            " /etc/apt/sources.list.d/*.sources 2>/dev/null"
            " | grep -E '^ *(deb|URIs:)' | grep -oE 'https?://[^]/: ]+' | sed 's|.*://||'"
            " | sort -u | head -n 5 | while read -r name; do"
            ' if timeout 8 getent ahosts "$name" >/dev/null; then echo "yes $name";'
            ' else echo "no $name"; fi; done'
        )

    @override
    def process(self, output: list[str]) -> Archives:
        rows = [line.partition(" ")[::2] for line in output]
        names = {name: word == "yes" for word, name in rows if word in ("yes", "no")}
        return Archives(names, "proxy" in output)


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
