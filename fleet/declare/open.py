"""An inventory file opened outside of pyinfra's own command line."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import click
from gevent import monkey  # type: ignore[import-untyped]
from pyinfra.api import Config, State
from pyinfra.api.state import StateStage
from pyinfra.context import ctx_config, ctx_inventory, ctx_state

from fleet.declare import inventory_file
from fleet.declare.capability import Capability
from fleet.declare.fleet import Fleet
from fleet.declare.load import group_names, load_fleet
from fleet.declare.project import project_of
from fleet.kit.connection.careful import be_careful
from fleet.kit.errors import FleetError

# pyinfra's command line replaces the standard library's sockets and threads when it is imported.
# What is opened here is asked one thing after the other and needs none of it.
with mock.patch.object(monkey, "patch_all"):
    from pyinfra_cli.exceptions import UnexpectedExternalError
    from pyinfra_cli.inventory import make_inventory


def open_inventory(path: Path, capabilities: tuple[Capability, ...]) -> tuple[State, Fleet]:
    """pyinfra's state and the checked settings of the inventory file `path`; no host is connected.

    Raises:
        FleetError: there is no such file, it or a file of group_data cannot be run, or its
            settings are refused.
    """
    if not path.exists():
        raise FleetError(f"{path}: no such inventory file")
    be_careful()
    # The order of pyinfra's own command line: inventory files are run with a state in place.
    config = Config()  # type: ignore[no-untyped-call]
    state = State(check_for_changes=False)
    ctx_state.set(state)  # type: ignore[no-untyped-call]
    ctx_config.set(config)  # type: ignore[no-untyped-call]
    inventory_file.check(path, group_names(capabilities))
    try:
        inventory = make_inventory(str(path), cwd=str(project_of(path)))
    except SyntaxError as error:
        raise inventory_file.failure(path, error) from None
    except UnexpectedExternalError as error:
        raise inventory_file.failure(error.filename, error.exception) from None
    ctx_inventory.set(inventory)  # type: ignore[no-untyped-call]
    fleet = load_fleet(inventory, capabilities, path)
    state.init(inventory, config)
    state.set_stage(StateStage.Connect)
    state.set_stage(StateStage.Prepare)
    return state, fleet


def open_asked(path: Path) -> tuple[State, Fleet]:
    """The inventory file of a `fleet` command, whose context holds the list of capabilities.

    Raises:
        FleetError: as `open_inventory`.
    """
    return open_inventory(path, click.get_current_context().obj)


def open_fleet(path: Path) -> Fleet:
    """What the inventory file of a `fleet` command declares; a refusal ends the command."""
    try:
        return open_asked(path)[1]
    except FleetError as error:
        raise click.ClickException(str(error)) from None
