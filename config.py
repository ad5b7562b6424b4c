"""pyinfra runs this file first: how hosts are reached, and what its inventory would leave out."""

from pathlib import Path

import click

from fleet.capabilities import CAPABILITIES
from fleet.declare import group_data, inventory_file, project
from fleet.declare.load import group_names
from fleet.kit.command_line import guard
from fleet.kit.connection.careful import be_careful
from fleet.kit.connection.together import ask_together
from fleet.kit.events import tell_run
from fleet.kit.paths import RUN_ID
from fleet.kit.quick import be_quick
from fleet.kit.secrets import ask_first, imagined, only_look
from fleet.version import version

# A log of a deploy says what it was deployed with.
click.echo(f"--> llm-fleet {version()}, run {RUN_ID}", err=True)
be_careful()
tell_run(click.get_current_context())
project.enter()
ask_together()
be_quick()
guard(click.get_current_context())


def _name_secrets() -> None:
    for root, names in imagined().items():
        click.echo(f"--> A deploy would make secrets in {root}: {', '.join(names)}", err=True)


click.get_current_context().call_on_close(_name_secrets)

# What only looks at hosts leaves no secret behind that no host knows.
if any(
    click.get_current_context().params.get(name)
    for name in ("dry", "debug_facts", "debug_operations")
):
    only_look()
elif not click.get_current_context().params.get("yes"):
    # So does a plan that is declined.
    ask_first()

group_data.also(click.get_current_context().params["group_data"])
_inventory = Path(click.get_current_context().params["inventory"])
if _inventory.is_file():
    inventory_file.check(_inventory, group_names(CAPABILITIES))
