"""`fleet`: what an operator asks of an inventory besides deploying and verifying it.

What is asked of one capability is in `fleet/<capability>/cli.py`.
"""

from __future__ import annotations

from pathlib import Path

import click

from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.open import open_fleet
from fleet.version import version


def _say_version(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        click.echo(f"llm-fleet {version()}")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_say_version,
    help="Show the version, and the commit of the checkout.",
)  # fmt: skip
@click.pass_context
def main(context: click.Context) -> None:
    """Use and inspect a fleet that `pyinfra INVENTORY deploy.py` made."""
    context.obj = CAPABILITIES


@main.command()
@click.argument("inventory", type=click.Path(path_type=Path))
def check(inventory: Path) -> None:
    """Print what INVENTORY declares, or everything that is refused; no host is reached."""
    fleet = open_fleet(inventory)
    rows = [("HOST", "GROUPS", "ADDRESSES")]
    rows += [(host.name, ", ".join(sorted(host.groups)), _addresses(fleet, host)) for host in fleet]
    names, groups = (max(len(row[column]) for row in rows) for column in (0, 1))
    for row in rows:
        click.echo(f"{row[0]:<{names}}  {row[1]:<{groups}}  {row[2]}")
    click.echo(f"secrets: {fleet.secrets.root}")


def _addresses(fleet: Fleet, host: FleetHost) -> str:
    services = fleet.services(host)
    return ", ".join(f"{item.name} {where}" for item in services for where in item.endpoints)


for _command in (command for item in CAPABILITIES for command in item.commands):
    main.add_command(_command)
