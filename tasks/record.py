"""The record that a host keeps of its deploys: who, when, from which commit, and to which end."""

from __future__ import annotations

from pyinfra import host, logger
from pyinfra.api import deploy

from fleet.declare.fleet import Fleet, FleetHost
from fleet.platform.operations import begin_deploy, end_deploy
from fleet.platform.record import DeployedRecord, Record, digest, remarks
from fleet.version import build


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
