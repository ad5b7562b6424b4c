"""pyinfra runs this file first: what it would leave out of an inventory is refused here."""

from pathlib import Path

import click

from fleet.capabilities import CAPABILITIES
from fleet.declare import inventory_file
from fleet.declare.load import group_names
from fleet.version import version

# A log of a deploy says what it was deployed with.
click.echo(f"--> llm-fleet {version()}", err=True)

_inventory = Path(click.get_current_context().params["inventory"])
if _inventory.is_file():
    inventory_file.check(_inventory, group_names(CAPABILITIES))
