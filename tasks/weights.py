"""Weights as files: fetched by the host itself, in a unit of its own, and hashed."""

from __future__ import annotations

import json

from pyinfra import host
from pyinfra.api import StringCommand, deploy
from pyinfra.operations import server

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.commands import verify_unit
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.places import have_directory
from fleet.kit.units import enable_unit
from fleet.weights.declared import is_off, weights_directory
from fleet.weights.files import loader_config, loader_files, token_files, unit_files
from fleet.weights.operations import provide_weights, prune_weights
from fleet.weights.paths import WEIGHTS_HOME, WEIGHTS_TIMER, WEIGHTS_UNIT, WEIGHTS_USER
from fleet.weights.preflight import refuse_without_room
from fleet.weights.settings import Weights


@deploy("Weights")
def room_for_weights(me: FleetHost) -> None:
    """Refuse a host on whose disk they do not fit, before anything is changed.

    Raises:
        FleetError: there is too little room.
    """
    if not is_off(me):
        refuse_without_room(me, host.get_fact)


@deploy("Weights")
def weights(me: FleetHost, fleet: Fleet) -> None:
    """Have the declared weights; the fetch shows its progress and outlives this deploy."""
    if is_off(me):
        return
    install_packages(name="Install Python", packages=["ca-certificates", "python3"])
    server.group(name="Create the group", group=WEIGHTS_USER, system=True)
    server.user(  # noqa: S604 - shell= is the login shell
        name="Create the user",
        user=WEIGHTS_USER,
        group=WEIGHTS_USER,
        system=True,
        home=WEIGHTS_HOME,
        shell="/usr/sbin/nologin",
        create_home=False,
        ensure_home=False,
    )
    have_directory(
        name="Create the directory",
        directory=weights_directory(me),
        group=WEIGHTS_USER,
        mode="755",
    )
    install_files(name="Install the loader", files=[*loader_files(me), *token_files(me, fleet)])
    install_files(
        name="Install the loader's unit",
        files=unit_files(me),
        check=StringCommand(
            "(", verify_unit(WEIGHTS_UNIT), ") && (", verify_unit(WEIGHTS_TIMER), ")"
        ),
    )
    enable_unit(name="Look at the weights at each boot", unit=WEIGHTS_UNIT)
    provide_weights(
        name="Provide the weights",
        config=json.dumps(loader_config(me)),
        wait_timeout=me[Weights].patience,
    )


@deploy("Weights")
def pruned_weights(me: FleetHost) -> None:
    """Have no other weights, now that whatever read them reads the declared ones."""
    if not is_off(me):
        prune_weights(name="Remove other weights", config=json.dumps(loader_config(me)))
