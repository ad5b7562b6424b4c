"""What a host says of itself."""

from __future__ import annotations

from pyinfra.api import FactBase, StringCommand
from typing_extensions import override


class HostAddresses(FactBase[list[str]]):
    """The host's own IP addresses, without prefix lengths."""

    default = list

    @override
    def command(self) -> StringCommand:
        return StringCommand('ip -o addr show | awk \'{ sub("/.*", "", $4); print $4 }\'')

    @override
    def process(self, output: list[str]) -> list[str]:
        return output
