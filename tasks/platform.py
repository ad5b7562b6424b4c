"""What a host must be before anything is changed on it, and what it keeps of its deploys."""

from __future__ import annotations

import time
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FactBase, Host, deploy
from pyinfra.api.exceptions import PyinfraError
from pyinfra.context import ctx_host, ctx_state
from pyinfra.facts.files import Directory
from pyinfra.facts.server import LinuxDistribution

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.cut_off import cut_off
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.listeners import Listener, Listeners
from fleet.kit.facts.places import Place, Places
from fleet.kit.files import install_files
from fleet.kit.jobs import forget_failed_jobs
from fleet.kit.outlook import tell_restarts
from fleet.kit.removal import take_back
from fleet.platform.directories import refuse_directories
from fleet.platform.facts import HostAddresses, HostClock
from fleet.platform.files import secrets_note
from fleet.platform.operations import begin_deploy, end_deploy
from fleet.platform.ports import refuse_taken_ports
from fleet.platform.preflight import (
    refuse_distribution,
    refuse_missing_address,
    refuse_other_init,
    refuse_other_store,
    refuse_wrong_clock,
)
from fleet.platform.record import DeployedRecord, Record, digest, remarks
from fleet.version import build


@deploy("Platform")
def platform(me: FleetHost, fleet: Fleet) -> None:
    """Refuse a host that this project does not know how to converge.

    Raises:
        FleetError: the distribution, its release or its init system is not supported, its clock is
            wrong, the host does not have the address that it is said to have, somebody else has a
            port or a directory of ours, or its secrets come from another store than this
            inventory's.
    """
    refuse_distribution(me, host.get_fact(LinuxDistribution)["release_meta"])
    refuse_other_init(me, has_systemd=bool(host.get_fact(Directory, path="/run/systemd/system")))
    refuse_wrong_clock(me, host.get_fact(HostClock), time.time())
    refuse_missing_address(me, host.get_fact(HostAddresses))
    listeners: tuple[Listener, ...] = host.get_fact(Listeners)
    refuse_taken_ports(me, fleet.services(me), listeners)
    directories = fleet.directories(me)
    places: dict[str, Place] = host.get_fact(Places, paths=[item.path for item in directories])
    refuse_directories(me, directories, places)
    forget_failed_jobs(name="Forget jobs of earlier deploys that failed")
    if fleet.keeps_secrets(me):
        note = secrets_note(fleet)
        refuse_other_store(me, fleet, host.get_fact(FileStates, paths=[note.path]).get(note.path))
        install_files(name="Note whose secrets these are", files=[note])


@deploy("Roles")
def forgone(me: FleetHost, fleet: Fleet) -> None:
    """Take back what the host is no more; what could be the only copy stays."""
    take_back(name="Take back what is declared no more", groups=fleet.forgone(me))


@deploy("Record")
def began() -> None:
    """Let the host know that a deploy of it has begun, for whoever finds it half done."""
    begin_deploy(name="Note that a deploy began")


@deploy("Record")
def ended(me: FleetHost, fleet: Fleet) -> None:
    """Note what was deployed, and say beforehand what of the last deploy this one may undo."""
    earlier: Record = host.get_fact(DeployedRecord)
    for line in remarks(earlier, build()):
        host.log(line, log_func=logger.warning)
    end_deploy(name="Note what was deployed", settings=digest(me, fleet))


def outlook(fleet: Fleet) -> None:
    """Say what would be restarted, before anything is done: in a dry run, and before the question.

    It is nothing that a host is to have, so it is no step of a deploy.
    """
    answers: dict[tuple[str, type], Any] = {}

    def look(name: str, fact: type[FactBase[Any]]) -> Any:
        key = name, fact
        if key not in answers:
            answers[key] = _asked(name, fact)
        return answers[key]

    tell_restarts(lambda name, restart: cut_off(fleet[name], fleet, restart, look))


def _asked(name: str, fact: type[FactBase[Any]]) -> Any:
    """What the gateway `name` answers; None where it is not connected in this run, or no more."""
    state = ctx_state.get()  # type: ignore[no-untyped-call]
    gateway: Host = state.inventory.get_host(name)
    if gateway not in state.active_hosts:
        return None
    try:
        with ctx_host.use(gateway):
            return gateway.get_fact(fact)
    except PyinfraError:
        # What is only told must not end the run of the hosts that are well.
        return None
