"""What a host says of itself."""

from __future__ import annotations

from pyinfra.api import FactBase, StringCommand
from typing_extensions import override


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
