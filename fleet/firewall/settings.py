"""Settings of the firewall."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from fleet.declare.settings import Item, Settings
from fleet.declare.types import Network, Port, PositiveDuration, Words, not_empty, text_form
from fleet.kit.durations import seconds

FirewallBackend = Literal["nftables", "none"]
# What engines call the bridges and pairs that they make. No card is called so, so a pattern that
# begins like this opens none.
_ENGINES = "br-|docker|podman|cni|cali|cilium|flannel|incusbr|lxcbr|lxdbr|veth|virbr"
InterfaceName = Annotated[
    str,
    text_form(
        rf"(?=.{{1,15}}$)([A-Za-z0-9][\w.-]*|({_ENGINES})[\w.-]*\*)",
        "an interface's name of at most 15 letters, such as docker0, or the beginning of names "
        f"that engines give, such as br-* ({_ENGINES.replace('|', ', ')})",
    ),
    Words("interface name"),
]
# Name to IANA's number: a host without netbase has no file of names.
PROTOCOLS = {
    "6in4": 41, "ah": 51, "esp": 50, "gre": 47, "ipip": 4, "l2tp": 115, "ospf": 89, "sctp": 132,
    "vrrp": 112,
}  # fmt: skip
IpProtocol = Literal["6in4", "ah", "esp", "gre", "ipip", "l2tp", "ospf", "sctp", "vrrp"]
ForwardName = Annotated[
    str,
    text_form(
        r"\*|(?=.{1,15}$)[A-Za-z0-9][\w.-]*\*?",
        "an interface name of at most 15 letters, such as virbr0 or vnet*, or * for any",
    ),
    Words("interface name"),
]


class Forward(Item):
    """A way that packets may take through the host."""

    heading = "A way through the host"
    introduction = (
        "What may come in by one interface and leave by another: "
        '`{"incoming": "virbr0", "outgoing": "*"}`. Answers need no way of their own.'
    )
    words = Words("way through the host", "ways through the host")

    incoming: ForwardName = Field(description="The interface it comes in by; `*` is any.")
    outgoing: ForwardName = Field(description="The interface it leaves by; `*` is any.")


class Firewall(Settings):
    """What may reach a host and its containers: everything else is dropped."""

    prefix = "firewall_"
    renamed: ClassVar[Mapping[str, str]] = {
        "firewall_enabled": 'firewall_backend = "none" for False, "nftables" for True',
    }

    backend: FirewallBackend = Field(
        "nftables",
        description=(
            "What closes the host: `nftables` is a table of this project's own, `inet llm_fleet`; "
            "a host where ufw or firewalld is in force is refused. `none` leaves filtering to "
            "others."
        ),
        json_schema_extra={
            "exposes": "`none` leaves every listening port as reachable as the network makes it."
        },
    )
    ssh_from: Annotated[tuple[Network, ...], AfterValidator(not_empty)] = Field(
        (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")),
        strict=False,
        description="Source networks that may reach sshd. Must hold the machine that deploys.",
    )
    open_tcp: tuple[Port, ...] = Field(
        (),
        strict=False,
        description=(
            "Further TCP ports to open, for services that this project does not manage. A port "
            "that a container publishes is closed unless it is listed here, by its number on the "
            "host."
        ),
        json_schema_extra={"exposes": "Each port is opened to every address."},
    )
    open_to_containers: tuple[Port, ...] = Field(
        (),
        strict=False,
        description="TCP ports of the host that its own containers may reach.",
        json_schema_extra={"exposes": "Each port is opened to every container on the host."},
    )
    open_udp: tuple[Port, ...] = Field(
        (),
        strict=False,
        description=(
            "UDP ports to open: that of a VPN which ends on the host, such as WireGuard's 51820. "
            "A port that a container publishes is meant, too."
        ),
        json_schema_extra={"exposes": "Each port is opened to every address."},
    )
    open_protocols: tuple[IpProtocol, ...] = Field(
        (),
        strict=False,
        description=(
            "Protocols beside TCP and UDP to open: those of a tunnel that ends on the host (IPsec "
            "is `esp` with the UDP ports 500 and 4500), or of routers that share an address."
        ),
        json_schema_extra={"exposes": "Each protocol is opened to every address."},
    )
    forward: tuple[Forward, ...] = Field(
        (),
        strict=False,
        description=(
            "Ways through the host that are neither containers' own nor to their published ports: "
            "of virtual machines, of a cluster's network, of a VPN. All others are closed."
        ),
        json_schema_extra={"exposes": "What is behind `outgoing` is open to whatever comes in."},
    )
    container_interfaces: tuple[InterfaceName, ...] = Field(
        ("docker0", "br-*", "podman*"),
        strict=False,
        description=(
            "The host's interfaces with containers behind them; a `*` at the end stands for any "
            "ending. Containers behind another one reach nobody but each other. A network card "
            "behind a bridge of such a name needs the exact names instead."
        ),
    )
    log_drops: bool = Field(
        True,
        description=(
            "Write dropped packets to the kernel's log, ten a minute, as `llm-fleet drop:`."
        ),
    )
    confirm_within: PositiveDuration = Field(
        "60s",
        description=(
            "New rules are put back by the host itself unless this machine logs in anew within "
            "this time, 5s to 10m."
        ),
    )

    @model_validator(mode="after")
    def _relations(self) -> Firewall:
        if not 5 <= seconds(self.confirm_within) <= 600:
            raise ValueError(
                f"firewall_confirm_within = {self.confirm_within!r}: 5s to 10m: a login must fit "
                "in it, and a host that shuts everybody out must come back"
            )
        return self
