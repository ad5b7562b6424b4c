"""`fleet doctor`: whether hosts can be deployed, before anything is changed on them."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from pyinfra.api import Host, State
from pyinfra.api.exceptions import PyinfraError

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.open import open_asked
from fleet.declare.preflight import Ask, Line, UnansweredError, Verdict, fail, not_checked, ok
from fleet.declare.settings import Settings
from fleet.kit.errors import FleetError
from fleet.operate.ask import asked_together
from fleet.operate.command import COULD_NOT_TELL, FINDINGS, GOOD, SCHEMA, json_option
from fleet.operate.hosts import chosen_hosts, hosts_argument, inventory_argument

_CONNECT = 10  # seconds until a host that does not answer counts as dead
_NARROW = 60  # columns
_LOGIN = "login"

# A host's name to its lines, each with the name of the capability that it is of.
Lines = list[tuple[str, Line]]


@click.command()
@inventory_argument
@hosts_argument
@json_option
@click.option("--verbose", "-v", is_flag=True, help="Show what is well, too.")
@click.option(
    "--timeout", type=click.IntRange(10, 3600), default=120, show_default=True,
    help="Seconds in which all hosts have to have answered.",
)  # fmt: skip
@click.pass_context
def doctor(  # noqa: PLR0913, PLR0917 - an option each
    context: click.Context,
    inventory: Path,
    hosts: tuple[str, ...],
    as_json: bool,
    verbose: bool,
    timeout: int,
) -> None:
    """Look whether INVENTORY's hosts can be deployed, and change nothing.

    Asks each HOST (or group), by default all, at the same time, and bare ones too: it installs
    nothing and writes nothing. A line a check, with the fix where there is something to be done.
    What is refused here is what a deploy refuses.

    Ends with 0 when nothing fails (warnings do not count), 1 when something does, 2 when no host
    could be reached.

    \b
    Example, one host with all that is well:
      fleet doctor inventory/prod.py gpu1.example.internal --verbose
    """
    state, fleet = open_asked(inventory)
    found = examine(state, fleet, chosen_hosts(fleet, hosts, or_groups=True), timeout)
    if as_json:
        click.echo(json.dumps(_as_object(found), indent=2))
    else:
        width = max(_NARROW, shutil.get_terminal_size().columns)
        for line in report(found, width, verbose=verbose):
            click.echo(line)
    context.exit(_ends_with(found))


def examine(
    state: State, fleet: Fleet, hosts: Iterable[FleetHost], timeout: float
) -> dict[str, Lines]:
    """Every check of every host; of one that cannot be reached, that."""
    names = {host.name for host in hosts}
    targets = [item for item in state.inventory if item.name in names]
    state.config.CONNECT_TIMEOUT = _CONNECT

    def ask(host: Host) -> Lines:
        return list(_checks(fleet[host.name], fleet, _asks(host)))

    answers = asked_together(state, targets, ask, timeout)
    return {
        name: _unreachable(answer) if isinstance(answer, FleetError) else answer
        for name, answer in answers.items()
    }


def _checks(me: FleetHost, fleet: Fleet, ask: Ask) -> Iterator[tuple[str, Line]]:
    yield _LOGIN, ok(_LOGIN, "commands run as root")
    for item in fleet.capabilities_of(me):
        name = _name_of(item.settings)
        try:
            for line in item.preflight(me, fleet, ask):
                # A refusal of a deploy names the host, which is said above all of its lines here.
                yield name, replace(line, text=line.text.replace(f"{me.name}: ", ""))
        except UnansweredError as error:
            yield name, not_checked(name, str(error))


def _unreachable(error: FleetError) -> Lines:
    return [
        (_LOGIN, fail(_LOGIN, " ".join(str(error).split()))),
        (_LOGIN, not_checked("everything else", "the host cannot be asked")),
    ]


def _asks(host: Host) -> Ask:
    """Facts of `host`, each asked once; one that cannot be read is an unanswered question."""
    known: dict[str, Any] = {}

    def ask(fact: Any, **arguments: Any) -> Any:
        key = f"{fact.__module__}.{fact.__name__} {arguments!r}"
        if key not in known:
            known[key] = _answer(host, fact, arguments)
        return known[key]

    return ask


def _answer(host: Host, fact: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        answer = host.get_fact(fact, **arguments)
    except PyinfraError as error:
        words = " ".join(str(part) for part in error.args)
        raise UnansweredError(words or f"{fact.__name__} could not be read") from None
    if host in host.state.failed_hosts:
        # One question without an answer is no reason to ask no other.
        host.state.failed_hosts.discard(host)
        raise UnansweredError(f"{fact.__name__} could not be read")
    return answer


def _name_of(settings: type[Settings]) -> str:
    return settings.prefix.rstrip("_") or settings.__name__.lower()


def report(found: Mapping[str, Lines], width: int, *, verbose: bool) -> Iterator[str]:
    """The lines of each host, of `width` columns at most, and how many there are of each kind."""
    marks = max(len(verdict) for verdict in Verdict)
    for name, lines in found.items():
        shown = [line for _, line in lines if verbose or line.verdict is not Verdict.OK]
        yield f"{name}: {_counted(line for _, line in lines)}"
        for line in shown:
            yield from textwrap.wrap(
                f"{line.what}: {line.text}" if line.text else line.what,
                width,
                initial_indent=f"  {line.verdict:<{marks}}  ",
                subsequent_indent=" " * (marks + 4),
                break_on_hyphens=False,
                break_long_words=False,
            )


def _counted(lines: Iterable[Line]) -> str:
    numbers = Counter(line.verdict for line in lines)
    return ", ".join(f"{numbers[verdict]} {verdict}" for verdict in Verdict if numbers[verdict])


def _as_object(found: Mapping[str, Lines]) -> dict[str, Any]:
    return {
        SCHEMA: "fleet-doctor/1",
        "hosts": [
            {
                "name": name,
                "checks": [
                    {
                        "capability": capability,
                        "check": line.what,
                        "verdict": str(line.verdict),
                        "text": line.text,
                    }
                    for capability, line in lines
                ],
            }
            for name, lines in found.items()
        ],
    }


def _ends_with(found: Mapping[str, Lines]) -> int:
    verdicts = {name: [line.verdict for _, line in lines] for name, lines in found.items()}
    if all(lines[0][1].verdict is Verdict.FAIL for lines in found.values()):
        return COULD_NOT_TELL
    return FINDINGS if any(Verdict.FAIL in kinds for kinds in verdicts.values()) else GOOD
