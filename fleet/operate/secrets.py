"""`fleet secrets`: where a fleet's secrets are kept, and how they get to another place."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from fleet.declare.project import project_of
from fleet.declare.stores import Stores, open_store, stores_of
from fleet.kit import age, store_moves
from fleet.kit.errors import FleetError
from fleet.kit.storage import AgeFiles, Storage, from_json
from fleet.operate.command import SCHEMA, Commands, json_option

_inventory = click.argument("inventory", type=click.Path(path_type=Path))


@click.group(cls=Commands)
def secrets() -> None:
    """List the secrets of an inventory, and say how they are kept.

    \b
    plain files            .secrets/<name>/, outside git: the default
    encrypted with age     secrets/<name>.age/, committed
    what a command prints  secrets/<name>.command, committed

    docs/operating/secrets.md says when to take which.
    """


@secrets.command("list")
@_inventory
@json_option
def list_(inventory: Path, as_json: bool) -> None:
    """Print the names of the secrets of INVENTORY and where they are kept, without a value."""
    kept = _open(inventory)
    if as_json:
        names = list(kept.names())
        found = {SCHEMA: "fleet-secrets-list/1", "kind": kept.kind, "place": str(kept.root)}
        click.echo(json.dumps({**found, "names": names}))
        return
    for name in kept.names():
        click.echo(name)
    click.echo(f"in {kept.root}: {kept.kind}", err=True)


@secrets.command()
@_inventory
@click.option(
    "--age", "recipients", multiple=True, metavar="RECIPIENT",
    help="Encrypt to this age public key (age1...) or SSH public key; give the option once for "
    "each. One of them has to be yours.",
)  # fmt: skip
@click.option(
    "--command", metavar="COMMAND",
    help="Read the secrets from what this shell command prints, run in the project's directory: "
    "one JSON object, name to value.",
)  # fmt: skip
@click.option("--plain", is_flag=True, help="Keep them as plain files, outside git.")
def init(inventory: Path, recipients: tuple[str, ...], command: str | None, plain: bool) -> None:
    """Say how the secrets of INVENTORY are kept, and move those that are there already.

    \b
    fleet secrets init inventory/prod.py --age age1... --age "$(cat me.pub)"
    fleet secrets init inventory/prod.py --command 'printenv FLEET_SECRETS'

    Cut short, it leaves every secret in at least one place; run it again to finish.
    """
    if sum(map(bool, (recipients, command, plain))) != 1:
        raise click.UsageError("say one of --age, --command and --plain")
    stores = _stores(inventory)
    target: Storage = stores.plain
    if recipients:
        target = stores.age
        store_moves.set_up_age(stores.age, recipients)
    elif command:
        target = stores.command
    sources = [item for item in stores.present() if item.root != target.root]
    if command:
        store_moves.set_up_command(stores.command, command, sources)
    moved = [store_moves.move(source, target) for source in sources]
    count = sum(item.number for item in moved)
    click.echo(f"{stores.name}: {target.kind} in {target.root}, {count} secrets moved there")
    for path in (path for item in moved for path in item.left):
        click.echo(
            f"{path}: not moved, and left there: if it is a secret, run this again, else take it "
            "away",
            err=True,
        )
    if not plain:
        click.echo(f"commit {target.root}", err=True)


@secrets.command()
@_inventory
def rekey(inventory: Path) -> None:
    """Encrypt every secret of INVENTORY anew, to those who are in recipients.txt now.

    Who is no longer there can still read what they have seen: give the keys new values, too.
    """
    kept = _open(inventory)
    if not isinstance(kept, AgeFiles):
        raise FleetError(f"{kept.root}: {kept.kind}; nothing is encrypted there")
    count = kept.rekey()
    people = len(age.recipients_of(kept.recipients))
    click.echo(f"{kept.root}: {count} secrets encrypted to {people} recipients; commit it")


@secrets.command("export")
@_inventory
@click.argument("names", nargs=-1, metavar="NAME...")
def export(inventory: Path, names: tuple[str, ...]) -> None:
    """Write the secrets of INVENTORY to a pipe or a file: one JSON object, name to value.

    \b
    fleet secrets export inventory/prod.py | vault kv put kv/prod -

    All of them, or those called NAME; never to a terminal.
    """
    if sys.stdout.isatty():
        raise click.UsageError("this prints secrets: send them to a command or a file, with | or >")
    kept = _open(inventory)
    if missing := sorted(set(names) - set(kept.names())):
        raise FleetError(f"{kept.root}: no secret called {', '.join(missing)}")
    found = {name: kept.read(name) for name in names or kept.names()}
    click.echo(json.dumps(found, indent=2))


@secrets.command("import")
@_inventory
@click.option("--replace", is_flag=True, help="Also give new values to secrets that are there.")
def import_(inventory: Path, replace: bool) -> None:
    """Keep for INVENTORY what comes on standard input: one JSON object, name to value.

    \b
    jq -Rs '{gateway_tls_key: .}' llm.key |
        fleet secrets import inventory/prod.py

    Nothing is written when a secret is there with another value, unless --replace is given.
    """
    kept = _open(inventory)
    given = from_json(sys.stdin.read(), "standard input")
    with kept.locked():
        there = set(kept.names())
        others = [
            name for name in sorted(there & set(given)) if kept.read(name) != given[name].strip()
        ]
        if others and not replace:
            raise FleetError(
                f"{kept.root}: {', '.join(others)}: there with another value; nothing was "
                "written; give --replace if that is meant"
            )
        new = sorted(set(given) - there) + others
        for name in new:
            kept.write(name, given[name])
    click.echo(f"{kept.root}: {len(new)} of {len(given)} secrets written", err=True)


def _stores(inventory: Path) -> Stores:
    if not inventory.is_file():
        raise FleetError(f"{inventory}: no such inventory file")
    return stores_of(inventory, project_of(inventory))


def _open(inventory: Path) -> Storage:
    if not inventory.is_file():
        raise FleetError(f"{inventory}: no such inventory file")
    return open_store(inventory, project_of(inventory)).kept
