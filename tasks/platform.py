"""What a host must be before anything is changed on it, and whose secrets it has."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.files import Directory
from pyinfra.facts.server import LinuxDistribution

from fleet.declare.fleet import Fleet, FleetHost
from fleet.dify.settings import Dify
from fleet.gateway.settings import Gateway
from fleet.kit import paths
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.files import ManagedFile, install_files
from fleet.platform.facts import HostAddresses
from fleet.platform.preflight import SUPPORTED
from fleet.platform.settings import Platform
from fleet.webui.settings import Webui


@deploy("Platform")
def platform(me: FleetHost, fleet: Fleet) -> None:
    """Refuse a host that this project does not know how to converge.

    Raises:
        FleetError: the distribution, its release or its init system is not supported, the host
            does not have the address that it is said to have, or its secrets come from another
            store than this inventory's.
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
    address = me[Platform].private_address
    present = host.get_fact(HostAddresses)
    if address is not None and str(address) not in present:
        raise FleetError(
            f"{me.name}: private_address = '{address}': the host has no such address, only "
            f"{', '.join(present)}; correct the inventory, or bring the interface up"
        )
    if me.runs(Gateway) or me.runs(Dify) or me.runs(Webui):
        _own_secrets(me, fleet)


def _own_secrets(me: FleetHost, fleet: Fleet) -> None:
    """A store that was left behind is made anew: every client would need another key at once."""
    note = ManagedFile(paths.SECRETS_STORE, f"{fleet.secrets.identity}\n")
    present = host.get_fact(FileStates, paths=[note.path]).get(note.path)
    if present is not None and present.sha256 != note.state.sha256:
        raise FleetError(
            f"{me.name}: its keys and passwords come from another secrets store than "
            f"{fleet.secrets.root}, and would all change; bring that store here from the machine "
            f"that deployed last (an inventory's store has its file's name), or, to have all made "
            f"anew, remove {note.path} on the host"
        )
    install_files(name="Note whose secrets these are", files=[note])
