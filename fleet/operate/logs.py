"""`fleet logs`: what is said on a host by what it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click
from pyinfra.api import FactBase, QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError
from typing_extensions import override

from fleet.declare.capability import Capability
from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.logs import NO_LOGS, Logs
from fleet.declare.open import open_asked
from fleet.kit.connection.careful import Careful
from fleet.kit.durations import seconds
from fleet.kit.errors import FleetError
from fleet.operate.ask import asked_together
from fleet.operate.hosts import chosen_hosts, host_argument, inventory_argument

_DEADLINE = 120  # seconds that a host may take to read its logs


@click.command()
@inventory_argument
@host_argument
@click.argument("capability", required=False)
@click.option(
    "-n", "--lines", type=click.IntRange(min=1), default=50, show_default=True, metavar="N",
    help="The last N lines of each: of the journal, of each file, of each container.",
)  # fmt: skip
@click.option(
    "--since", metavar="DURATION",
    help="Only what is newer, as in 30m or 2h; files are read by their last lines all the same.",
)  # fmt: skip
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
def logs(  # noqa: PLR0913, PLR0917 - an option each
    inventory: Path,
    host: str,
    capability: str | None,
    lines: int,
    since: str | None,
    follow: bool,
) -> None:
    """Print what is said on HOST by what it runs, or by its CAPABILITY alone.

    That is the journal of its units, with the gateway its access log, and with Dify its containers.
    A CAPABILITY is called as its page in docs/operating: ollama, models, gateway, driver, dify ...

    Example: fleet logs inventory/prod.py edge gateway --since 2h --follow
    """
    state, fleet = open_asked(inventory)
    (me,) = chosen_hosts(fleet, [host])
    places = places_of(fleet, me, capability)
    command = reading(places, lines, None if since is None else _seconds(since), follow)
    here = state.inventory.get_host(me.name)
    if not follow:
        answer = asked_together(
            state, [here], lambda it: it.get_fact(Read, reading=command), _DEADLINE
        )[me.name]
        if isinstance(answer, FleetError):
            raise FleetError(f"{me.name}: {answer}")
        click.echo("\n".join(answer))
        return
    try:
        here.connect(show_errors=False, raise_exceptions=True)
    except ConnectError as error:
        raise FleetError(f"{me.name}: {' '.join(map(str, error.args))}") from None
    assert isinstance(here.connector, Careful)
    with closing(here.connector.lines_of(command)) as said:
        for line in said:
            click.echo(line)


def _seconds(duration: str) -> int:
    try:
        return round(seconds(duration))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--since") from None


def name_of(capability: Capability) -> str:
    """What a capability is called: as its room and its page."""
    return capability.settings.__module__.split(".")[1]


def places_of(fleet: Fleet, me: FleetHost, name: str | None) -> list[Logs]:
    """Where the logs of one capability of a host are, or of all that it has.

    Raises:
        FleetError: the host has no such capability, or nothing of it keeps a log.
    """
    found = {name_of(item): item.logs for item in fleet.capabilities_of(me) if item.logs != NO_LOGS}
    if name is not None and name not in found:
        raise FleetError(f"{me.name}: {name} keeps no log there; {', '.join(found)} do")
    return [found[name]] if name is not None else list(found.values())


class Read(FactBase[list[str]]):
    """What the command `reading` prints, line by line."""

    default = list

    @override
    def command(self, reading: StringCommand) -> StringCommand:
        return reading

    @override
    def process(self, output: list[str]) -> list[str]:
        return output


def reading(places: list[Logs], lines: int, since: int | None, follow: bool) -> StringCommand:
    """A command that prints the last `lines` of each, `since` so many seconds ago.

    With `follow` it goes on until its standard input ends, as when the connection does.
    """
    commands = list(_commands(places, lines, since, follow))
    parts: list[StringCommand | str] = []
    for command in commands:
        parts += [command, "&" if follow else ";"]
    if follow:
        # The shell is the head of its own process group: whatever it has started ends with it.
        parts += ["cat >/dev/null; trap '' TERM; kill -- -$$"]
    text = StringCommand(*parts)
    return StringCommand("exec setsid --wait sh -c" if follow else "sh -c", QuoteString(text))


def _commands(
    places: list[Logs], lines: int, since: int | None, follow: bool
) -> Iterator[StringCommand]:
    on = "--follow" if follow else ""
    if units := [unit for item in places for unit in item.units]:
        options = [part for unit in units for part in ("--unit", QuoteString(unit))]
        newer = "" if since is None else f"--since=-{since}s"
        yield StringCommand(
            "journalctl --quiet --no-pager --output=short-iso -n", lines, newer, on, *options
        )
    for path in (path for item in places for path in item.files):
        name = QuoteString(path)
        yield StringCommand(
            "{ [ ! -e",
            name,
            "] || tail",
            "-F" if follow else "",
            "-n",
            lines,
            name,
            "2>/dev/null; }",
        )
    for project in (item.project for item in places if item.project):
        newer = "" if since is None else f"--since={since}s"
        yield StringCommand(
            "docker compose -p", QuoteString(project), "logs --no-color --timestamps --tail", lines,
            newer, on,
        )  # fmt: skip
