"""What a host must be before anything is changed on it."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.files import Directory
from pyinfra.facts.server import LinuxDistribution

from fleet.errors import FleetError
from fleet.facts.platform import HostAddresses
from fleet.inventory import FleetHost

SUPPORTED: dict[str, tuple[str, ...]] = {
    "debian": ("12", "13"),
    "ubuntu": ("22.04", "24.04", "26.04"),
}


@deploy("Platform")
def platform(me: FleetHost) -> None:
    """Refuse a host that this project does not know how to converge.

    Raises:
        FleetError: the distribution, its release or its init system is not supported, or the host
            does not have the address that it is said to have.
    """
    release = host.get_fact(LinuxDistribution)["release_meta"]
    name, version = release.get("ID", "unknown"), release.get("VERSION_ID", "unknown")
    if version not in SUPPORTED.get(name, ()):
        known = "; ".join(f"{key} {', '.join(value)}" for key, value in SUPPORTED.items())
        raise FleetError(f"{me.name}: {name} {version} is not supported, only {known}")
    if not host.get_fact(Directory, path="/run/systemd/system"):
        raise FleetError(
            f"{me.name}: systemd is not the init system here, but this project needs it"
        )
    address = me.host.private_address
    present = host.get_fact(HostAddresses)
    if address is not None and str(address) not in present:
        raise FleetError(
            f"{me.name}: private_address = '{address}': the host has no such address, only "
            f"{', '.join(present)}; correct the inventory, or bring the interface up"
        )
