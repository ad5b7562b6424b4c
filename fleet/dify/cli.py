"""What an operator asks of Dify: a backup, and to have one put back."""

from __future__ import annotations

from pathlib import Path

import click
from pyinfra.api.exceptions import PyinfraError

from fleet.declare.open import open_asked
from fleet.dify.backups import DifyHost


@click.group("dify")
def dify_group() -> None:
    """Dify's backups: make one and have a copy, or put one back."""


@dify_group.command("backup")
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("host")
@click.option(
    "--to", "into", type=click.Path(path_type=Path), default=Path("backups"), show_default=True,
    help="Where the copy goes, in a directory of the host's name.",
)  # fmt: skip
def dify_backup(inventory: Path, host: str, into: Path) -> None:
    """Back up Dify on HOST, and copy the archive to this machine. It holds secrets."""
    try:
        state, fleet = open_asked(inventory)
        connection = DifyHost(state, fleet, host)
        try:
            copy = connection.backup(into / host)
        finally:
            connection.close()
    except (PyinfraError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(copy)


@dify_group.command("restore", short_help="Have ARCHIVE put back by a deploy.")
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("host")
@click.argument("archive", type=click.Path(path_type=Path))
def dify_restore(inventory: Path, host: str, archive: Path) -> None:
    """Lay ARCHIVE ready on HOST, bare or not, and its secrets into the store; a deploy restores it.

    What is on the host before is put aside there, in /var/lib/dify/volumes.before-*.
    """
    try:
        state, fleet = open_asked(inventory)
        connection = DifyHost(state, fleet, host)
        try:
            replaced = connection.restore(archive)
        finally:
            connection.close()
    except (PyinfraError, OSError) as error:
        raise click.ClickException(str(error)) from None
    for name in replaced:
        click.echo(f"{name}: the store has the backup's value now", err=True)
    click.echo(f"Now run: pyinfra {inventory} deploy.py --limit {host}", err=True)


COMMANDS = (dify_group,)
