"""Settings of the host itself."""

from __future__ import annotations

from pydantic import Field

from fleet.declare.settings import Settings
from fleet.declare.types import Address, Port


class Platform(Settings):
    """How the fleet sees a host."""

    prefix = ""

    private_address: Address | None = Field(
        None,
        description=(
            "The host's address inside the fleet: GPU hosts serve the gateway on it, and gateways "
            "call from it. Needed by every `..._listen` and `gateway_metrics` that is `private` "
            "(`gateway_listen` is by default), and by a gateway whose GPU hosts are other machines."
        ),
    )
    ssh_port: Port = Field(
        22, description="The port of sshd, kept open by the firewall and used to connect."
    )
