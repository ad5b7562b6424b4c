"""pyinfra runs this file first: how hosts are reached, and what its inventory would leave out."""

from pathlib import Path

import click
from pyinfra.context import ctx_state

from fleet.capabilities import CAPABILITIES
from fleet.declare import inventory_file, project
from fleet.declare.load import group_names
from fleet.kit.connection.careful import be_careful
from fleet.kit.paths import RUN_ID
from fleet.kit.run import failures
from fleet.version import version

# A log of a deploy says what it was deployed with.
click.echo(f"--> llm-fleet {version()}, run {RUN_ID}", err=True)
be_careful()
project.enter()


def _name_failures() -> None:
    state = ctx_state.get()  # type: ignore[no-untyped-call]
    if found := failures(state) if state is not None and state.initialised else {}:
        click.echo("--> Failed hosts:", err=True)
    for name, why in found.items():
        click.echo(f"    {name}: {why}", err=True)


click.get_current_context().call_on_close(_name_failures)

_inventory = Path(click.get_current_context().params["inventory"])
if _inventory.is_file():
    inventory_file.check(_inventory, group_names(CAPABILITIES))
