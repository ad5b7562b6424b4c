"""Our nftables table, as it is and as its file would make it; who else filters; how we came in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.firewall.paths import FIREWALL_TABLE
from fleet.kit.render import host_program


class Ruleset(NamedTuple):
    """Two listings of one table in nft's own words; empty where there is none."""

    live: str
    declared: str


class RulesetState(FactBase[Ruleset]):
    """`table` as the kernel has it, and as `path` would make it.

    The file is loaded in a network namespace of its own that lasts as long as the command, so both
    listings come from the same nft and can be compared whole; but for who is in a set, which
    changes from packet to packet. Of a file that nft does not take, nothing would be made.
    """

    _SEPARATOR = "-- declared --"

    @override
    @staticmethod
    def default() -> Ruleset:
        return Ruleset("", "")

    @override
    def command(self, table: str, path: str) -> StringCommand:
        return StringCommand(
            f"nft --stateless --terse list table {table} 2>/dev/null;",
            f"echo '{self._SEPARATOR}'; [ ! -f",
            QuoteString(path),
            "] || unshare --net sh -c",
            QuoteString(
                StringCommand(
                    "nft -f", QuoteString(path), f"&& nft --stateless --terse list table {table}"
                ).get_raw_value()
            ),
            "|| true",
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


class Carrier(NamedTuple):
    """The interface that answers to an address, its kind as `ip` says it (`wireguard`, `gre`).

    `ports` are UDP ports that the tunnel behind it is known to use.
    """

    interface: str
    kind: str
    ports: tuple[int, ...]


class LoginCarrier(FactBase[Carrier | None]):
    """By which interface `source` is answered; None where there is no way to it."""

    _TUNNEL_PORT = "port of the tunnel: "

    @override
    @staticmethod
    def default() -> None:
        return None

    @override
    def command(self, source: str) -> StringCommand:
        return StringCommand(
            "name=$(ip -o route get", QuoteString(source),
            "2>/dev/null | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p'); [ -z \"$name\" ] || {",
            'ip -json -details link show dev "$name";',
            "! command -v wg >/dev/null || wg show \"$name\" listen-port 2>/dev/null",
            f"| sed 's/^/{self._TUNNEL_PORT}/'; }}",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> Carrier | None:
        if not output:
            return None
        marked = [line for line in output if line.startswith(self._TUNNEL_PORT)]
        [link] = json.loads("".join(line for line in output if line not in marked))
        about = link.get("linkinfo", {})
        ports = [int(line.removeprefix(self._TUNNEL_PORT)) for line in marked]
        if isinstance(port := about.get("info_data", {}).get("port"), int):
            ports.append(port)
        return Carrier(link["ifname"], about.get("info_kind", ""), tuple(filter(None, ports)))


class Closed(NamedTuple):
    """A connection that another packet filter closes: the probe, and the rule that is its end."""

    probe: str
    rule: str


class Filters(NamedTuple):
    """What other packet filters close, and what of them could not be judged, with the reason."""

    closed: tuple[Closed, ...] = ()
    unknown: tuple[str, ...] = ()


class OtherFilters(FactBase[Filters]):
    """Which of `probes` another packet filter of the host closes, as tried beside the host.

    Containers are behind interfaces that are called like one of `bridges`.
    """

    @override
    @staticmethod
    def default() -> Filters:
        return Filters()

    @override
    def command(self, probes: Sequence[str], bridges: Sequence[str]) -> StringCommand:
        return StringCommand(
            "sh -c",
            QuoteString(host_program("firewall", "filter-probe")),
            "filter-probe",
            QuoteString(FIREWALL_TABLE),
            QuoteString(" ".join(bridges)),
            *(QuoteString(probe) for probe in probes),
        )

    @override
    def process(self, output: list[str]) -> Filters:
        words = [line.split(maxsplit=2) for line in output if line.strip()]
        return Filters(
            tuple(Closed(line[1], "".join(line[2:])) for line in words if line[0] == "closed"),
            tuple(" ".join(line[1:]) for line in words if line[0] == "unknown"),
        )


class Uplinks(FactBase[list[str]]):
    """The interfaces that lead out of the host: those of hardware, and of its default routes."""

    default = list

    @override
    def command(self) -> str:
        return (
            "{ for path in /sys/class/net/*/device; do "
            '[ ! -e "$path" ] || basename "$(dirname "$path")"; done; '
            "for family in -4 -6; do ip -o $family route show default 2>/dev/null "
            "| sed -n 's/.* dev \\([^ ]*\\).*/\\1/p'; done; } | sort -u"
        )

    @override
    def process(self, output: list[str]) -> list[str]:
        return output


class Bridges(FactBase[list[str]]):
    """The host's bridges: of containers, of virtual machines, or of its cards."""

    default = list

    @override
    def command(self) -> str:
        return "ip -o link show type bridge | awk -F ': ' '{ print $2 }'"

    @override
    def process(self, output: list[str]) -> list[str]:
        return output


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
