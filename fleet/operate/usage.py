"""`fleet usage`: who used how many tokens, of which model, counted by the gateways."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click
from pyinfra.api import Host, State
from rich.console import Console
from rich.table import Table

from fleet.declare.fleet import Fleet
from fleet.declare.open import open_asked
from fleet.gateway.facts import UsageFiles
from fleet.gateway.settings import Gateway
from fleet.gateway.usage import PARTS, Count, Used, counts_of, days_since, summed
from fleet.kit.errors import FleetError
from fleet.operate.ask import asked_together
from fleet.operate.command import COULD_NOT_TELL, GOOD, json_option, print_json
from fleet.operate.hosts import inventory_argument

_CONNECT = 10  # seconds until a gateway that does not answer counts as dead
_DEADLINE = 60  # seconds until one that answered its login has to have sent its files
_WIDTH = 80  # columns, as no terminal has less
_LONG = 10_000_000
_ALWAYS = {"requests", "prompt", "completion"}
_COLUMNS = {
    "requests": "requests", "prompt": "prompt_tokens", "cached": "cached_tokens",
    "completion": "completion_tokens", "estimated": "estimated_tokens",
}  # fmt: skip


def _complete(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """The parts that can still be added to a list with commas."""
    head, comma, last = begun.rpartition(",")
    taken = head.split(",")
    return [f"{head}{comma}{part}" for part in PARTS if part.startswith(last) and part not in taken]


def _parts(_: click.Context, __: click.Parameter, text: str) -> list[str]:
    found = [part.strip() for part in text.split(",")]
    if unknown := [part for part in found if part not in PARTS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(PARTS)}")
    return list(dict.fromkeys(found))


def _days(_: click.Context, __: click.Parameter, text: str) -> list[date]:
    try:
        return days_since(text, datetime.now(UTC).date())
    except ValueError as error:
        raise click.BadParameter(f"{text!r}: {error}") from None


@click.command()
@inventory_argument
@click.option(
    "--since", "days", default="30d", show_default=True, callback=_days, metavar="TIME",
    help="Days up to today (30d: today is the last of 30), or the first day (2026-11-01).",
)  # fmt: skip
@click.option(
    "--by", default="key,model", show_default=True, callback=_parts, shell_complete=_complete,
    metavar="PARTS", help=f"What to sum by, with commas: {', '.join(PARTS)}.",
)  # fmt: skip
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values instead.")
@click.pass_context
def usage(  # noqa: PLR0913, PLR0917 - an option each
    context: click.Context,
    inventory: Path,
    days: list[date],
    by: list[str],
    as_json: bool,
    as_csv: bool,
) -> None:
    """Show how many tokens INVENTORY's keys have used, of which models.

    Asks all gateways at the same time and adds up what they have counted: requests that were
    answered, tokens of prompts and of answers. Days are those of UTC.

    Ends with 0, or with 2 when a gateway could not be asked: what it counted is not in the sums.

    \b
    Examples:
      fleet usage inventory/prod.py --since 7d --by day,key
      fleet usage inventory/prod.py --since 2026-11-01 --csv > november.csv
    """
    if as_json and as_csv:
        raise click.UsageError("--json and --csv: one of them")
    state, fleet = open_asked(inventory)
    counts, missing = ask_gateways(state, fleet, days)
    sums = summed(counts, by)
    if as_json:
        print_json("usage", _as_object(fleet, days, by, sums, missing))
    elif as_csv:
        click.echo(_as_csv(by, sums), nl=False)
    else:
        _show(fleet, days, by, sums, missing)
    if not as_json:
        for name, reason in missing.items():
            click.echo(f"{name} could not be asked, its counts are missing: {reason}", err=True)
    context.exit(COULD_NOT_TELL if missing else GOOD)


def ask_gateways(
    state: State, fleet: Fleet, days: list[date]
) -> tuple[list[Count], dict[str, str]]:
    """What all gateways have counted on `days`, and of whom that is not known, with the reason."""
    names = [gateway.name for gateway in fleet.running(Gateway)]
    if not names:
        raise FleetError("no host of this inventory is a gateway, so nothing is counted")
    state.config.CONNECT_TIMEOUT = _CONNECT

    def ask(host: Host) -> list[Count]:
        files = host.get_fact(UsageFiles, days=[str(day) for day in days])
        if files is None:
            raise FleetError("it has never counted: deploy it")
        return list(counts_of(files))

    hosts = [host for host in state.inventory if host.name in names]
    counts: list[Count] = []
    missing: dict[str, str] = {}
    for name, answer in asked_together(state, hosts, ask, _CONNECT + _DEADLINE).items():
        if isinstance(answer, FleetError):
            missing[name] = " ".join(str(answer).split())
        else:
            counts += answer
    return counts, missing


Sums = Mapping[tuple[str, ...], Used]


def _named(used: Used) -> dict[str, int]:
    return {_COLUMNS[kind]: number for kind, number in asdict(used).items()}


def _as_object(
    fleet: Fleet, days: list[date], by: list[str], sums: Sums, missing: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "since": str(days[0]),
        "until": str(days[-1]),
        "by": by,
        "gateways": [
            {"name": host.name, "reason": missing.get(host.name)} for host in fleet.running(Gateway)
        ],
        "rows": [
            {**dict(zip(by, name, strict=True)), **_named(used)} for name, used in sums.items()
        ],
        "total": _named(sum(sums.values(), Used())),
    }


def _as_csv(by: list[str], sums: Sums) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*by, *_COLUMNS.values()])
    rows.writerows([*name, *_named(used).values()] for name, used in sums.items())
    return text.getvalue()


def _shown(number: int) -> str:
    """`1,234,567` or, where that would take the room of a name, `12.3M`."""
    if number < _LONG:
        return f"{number:,}"
    power = (len(str(number)) - 1) // 3
    return f"{number / 1000**power:.1f}{'kMGTPE'[min(power, 6) - 1]}"


def _show(
    fleet: Fleet, days: list[date], by: list[str], sums: Sums, missing: Mapping[str, str]
) -> None:
    asked = [host.name for host in fleet.running(Gateway) if host.name not in missing]
    console = Console(width=_WIDTH, highlight=False, markup=False, emoji=False)
    if not asked:
        return
    if not sums:
        console.print(f"Nothing since {days[0]} (UTC), counted by {', '.join(asked)}.")
        return
    total = sum(sums.values(), Used())
    # Of a fleet whose servers tell no such thing, a column of zeros says nothing.
    kinds = [kind for kind, number in asdict(total).items() if number or kind in _ALWAYS]
    table = Table(box=None, pad_edge=False, show_footer=True)
    for place, part in enumerate(by):
        is_day = part == "day"
        table.add_column(part, footer="" if place else "all", overflow="fold", no_wrap=is_day)
    for kind in kinds:
        footer = _shown(getattr(total, kind))
        table.add_column(kind, footer=footer, justify="right", no_wrap=True)
    for name, used in sums.items():
        table.add_row(*name, *(_shown(getattr(used, kind)) for kind in kinds))
    console.print(table)
    console.print(f"Tokens since {days[0]} (UTC), counted by {', '.join(asked)}.")
