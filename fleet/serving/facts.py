"""Which of its declared servers a host has already."""

from __future__ import annotations

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.paths import UNITS


class ServersThere(FactBase[tuple[str, ...]]):
    """Of `servers`, unit to `address:port`, the units of those that there are.

    One answers there, whatever it is called; or its unit runs, and is about that port.
    """

    default = tuple

    @override
    def command(self, servers: dict[str, str]) -> StringCommand:
        return StringCommand(
            *(
                bit
                for unit, endpoint in servers.items()
                for bit in (
                    "if curl -fsS -o /dev/null --noproxy '*' --max-time 5",
                    QuoteString(f"http://{endpoint}/api/version"),
                    "2>/dev/null || { systemctl is-active --quiet", QuoteString(unit),
                    "&& grep -qwF -e", QuoteString(endpoint), QuoteString(f"{UNITS}/{unit}"),
                    "2>/dev/null; }; then echo", QuoteString(unit), "; fi;",
                )
            ),
            "true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        return tuple(output)
