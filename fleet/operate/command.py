"""What every command of `fleet` has in common: its exit status, and `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

import click
from typing_extensions import override

from fleet.kit.errors import FleetError

GOOD: Final = 0
FINDINGS: Final = 1
COULD_NOT_TELL: Final = 2
INTERRUPTED: Final = 130

# The first key of whatever a command prints with `--json`; a change that breaks readers adds one.
SCHEMA: Final = "schema"

_ANY_LENGTH = 1000  # characters; click itself cuts a sentence off after 45

json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON object instead; its keys are in docs/operating.",
)


def print_json(command: str, values: Mapping[str, Any]) -> None:
    """Print the one object of a command's `--json`, in the first version of its schema."""
    click.echo(json.dumps({SCHEMA: f"fleet-{command}/1", **values}, indent=2))


class Commands(click.Group):
    """A group whose commands end with 0 good, 1 findings, 2 could not tell, 130 interrupted.

    A command ends with findings by `context.exit(FINDINGS)`. A `FleetError` or a
    `click.ClickException` that leaves it is why it could not tell, as is an `OSError`: it is
    printed, without a traceback.
    """

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with its whole first sentence."""
        rows = [
            (name, command.get_short_help_str(limit=_ANY_LENGTH))
            for name, command in sorted(self.commands.items())
            if not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    @override
    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        inner: Any = super().main
        if not standalone_mode:
            return inner(*args, standalone_mode=False, **extra)
        try:
            status = inner(*args, standalone_mode=False, **extra)
        except (click.Abort, KeyboardInterrupt):
            click.echo("interrupted", err=True)
            status = INTERRUPTED
        except click.ClickException as error:
            error.show()
            status = COULD_NOT_TELL
        except FleetError as error:
            click.echo(f"Error: {error}", err=True)
            status = COULD_NOT_TELL
        except OSError as error:
            where = f"{error.filename}: " if error.filename is not None else ""
            click.echo(f"Error: {where}{error.strerror or error}", err=True)
            status = COULD_NOT_TELL
        sys.exit(status if isinstance(status, int) else GOOD)
