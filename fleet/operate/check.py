"""`fleet check`: what an inventory declares, or what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import click

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.open import open_asked
from fleet.kit.errors import FleetError
from fleet.operate.command import FINDINGS


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path))
@click.pass_context
def check(context: click.Context, inventory: Path) -> None:
    """Print what INVENTORY declares, or everything that is refused; no host is reached."""
    try:
        fleet = open_asked(inventory)[1]
    except FleetError as error:
        click.echo(f"Error: {error}", err=True)
        context.exit(FINDINGS)
    rows = [("HOST", "GROUPS", "ADDRESSES")]
    rows += [(host.name, ", ".join(sorted(host.groups)), _addresses(fleet, host)) for host in fleet]
    names, groups = (max(len(row[column]) for row in rows) for column in (0, 1))
    for row in rows:
        click.echo(f"{row[0]:<{names}}  {row[1]:<{groups}}  {row[2]}")
    click.echo(f"secrets: {fleet.secrets.root}")


def _addresses(fleet: Fleet, host: FleetHost) -> str:
    services = fleet.services(host)
    return ", ".join(f"{item.name} {where}" for item in services for where in item.endpoints)
