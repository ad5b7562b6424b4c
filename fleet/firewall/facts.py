"""Our nftables table, as it is and as its file would make it; and how we came in."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override


class Ruleset(NamedTuple):
    """Two listings of one table in nft's own words; empty where there is none."""

    live: str
    declared: str


class RulesetState(FactBase[Ruleset]):
    """`table` as the kernel has it, and as `path` would make it.

    The file is loaded in a network namespace of its own that lasts as long as the command, so both
    listings come from the same nft and can be compared whole.
    """

    _SEPARATOR = "-- declared --"

    @override
    @staticmethod
    def default() -> Ruleset:
        return Ruleset("", "")

    @override
    def command(self, table: str, path: str) -> StringCommand:
        return StringCommand(
            f"nft --stateless list table {table} 2>/dev/null; echo '{self._SEPARATOR}'; [ ! -f",
            QuoteString(path),
            "] || unshare --net sh -c",
            QuoteString(
                StringCommand(
                    "nft -f", QuoteString(path), f"&& nft --stateless list table {table}"
                ).get_raw_value()
            ),
        )

    @override
    def process(self, output: list[str]) -> Ruleset:
        border = output.index(self._SEPARATOR)
        return Ruleset("\n".join(output[:border]), "\n".join(output[border + 1 :]))


class Login(NamedTuple):
    """Where a connection comes from, and the port of sshd that it came to, as sshd sees them."""

    source: IPv4Address | IPv6Address
    port: int


class SshLogin(FactBase[Login | None]):
    """The connection that asks; None over a connector that is not SSH. Ask it without sudo."""

    @override
    @staticmethod
    def default() -> None:
        return None

    @override
    def command(self) -> str:
        # sudo drops the variable.
        return 'echo "${SSH_CONNECTION:-}"'

    @override
    def process(self, output: list[str]) -> Login | None:
        parts = " ".join(output).split()
        if len(parts) != 4:
            return None
        source = ip_address(parts[0])
        mapped = source.ipv4_mapped if isinstance(source, IPv6Address) else None
        return Login(mapped or source, int(parts[3]))


class OtherFirewalls(FactBase[list[str]]):
    """Which of `ufw` and `firewalld` filter now, or will from the next boot on."""

    default = list

    @override
    def command(self) -> str:
        # ufw's unit is active on a host where ufw itself is not: its configuration decides.
        return (
            "if grep -qsx 'ENABLED=yes' /etc/ufw/ufw.conf || "
            "{ command -v ufw >/dev/null && LC_ALL=C ufw status | grep -qx 'Status: active'; }; "
            "then echo ufw; fi; "
            "if systemctl -q is-active firewalld.service || "
            "systemctl -q is-enabled firewalld.service 2>/dev/null; then echo firewalld; fi"
        )

    @override
    def process(self, output: list[str]) -> list[str]:
        return output
