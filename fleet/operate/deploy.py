"""`fleet deploy`: check, plan, one question, run, and what came of it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from fleet.declare.fleet import Fleet
from fleet.declare.open import open_asked
from fleet.kit.errors import FleetError
from fleet.operate import show
from fleet.operate.command import FINDINGS, GOOD, json_option, print_json
from fleet.operate.hosts import chosen_hosts, hosts_argument, inventory_argument
from fleet.operate.outcome import Outcome
from fleet.operate.run import Run, ends_on_sigterm


@click.command()
@inventory_argument
@hosts_argument
@click.option("-y", "--yes", is_flag=True, help="Deploy without a plan and a question.")
@click.option("--dry", is_flag=True, help="Only tell what would be changed; change nothing.")
@click.option("--diff", is_flag=True, help="Show pyinfra's own output, with the lines that differ.")
@click.option("--at-once", is_flag=True, help="Restart the servers together, and not in turn.")
@click.option("--force", is_flag=True, help="End another deploy that is at work on these hosts.")
@click.option("--serial", is_flag=True, help="Take one host after the other.")
@click.option(
    "--parallel", type=click.IntRange(min=1), metavar="N",
    help="Take at most N hosts at a time in each step; by default 20 a processor.",
)  # fmt: skip
@json_option
@click.pass_context
def deploy(  # noqa: PLR0913, PLR0917 - an option each
    context: click.Context,
    inventory: Path,
    hosts: tuple[str, ...],
    yes: bool,
    dry: bool,
    diff: bool,
    at_once: bool,
    force: bool,
    serial: bool,
    parallel: int | None,
    as_json: bool,
) -> None:
    """Make every HOST, or all of INVENTORY, what is declared.

    First comes the plan, and one question; then what changes, as it happens, and in the end what
    came of each host. A HOST may be the name of a group. It runs `pyinfra INVENTORY deploy.py`,
    whose whole output is kept in a log.

    Example: fleet deploy inventory/prod.py gpu1 gpu2
    """
    if not (yes or dry or sys.stdin.isatty()):
        raise FleetError("there is no terminal to ask at, so nothing was done; add --yes or --dry")
    ends_on_sigterm()
    fleet = open_asked(inventory)[1]
    options = ["--dry"] if dry else ["--yes"] if yes else []
    options += ["--diff"] * diff + ["--serial"] * serial
    options += ["--parallel", str(parallel)] if parallel else []
    options += ["--data", "gateway_roll=at-once"] if at_once else []
    run = Run(
        fleet,
        inventory,
        chosen_hosts(fleet, hosts, or_groups=True),
        options,
        echoes=diff,
        forces=force,
    )
    outcome = run.carry_out(lambda planned: not dry and _is_wanted(run.console, planned))
    # A plan that is declined ends as badly for pyinfra, and has told all.
    is_declined = outcome.is_planned and outcome.is_ended and not (outcome.is_executed or dry)
    if not is_declined:
        run.need_told()
    if as_json:
        print_json("deploy", _report(outcome, run, dry=dry))
    else:
        lines = [
            *(show.plan(outcome) if dry else show.summary(outcome)),
            *_after(run, fleet, dry=dry),
        ]
        _print(Console(highlight=False, emoji=False), lines)
    context.exit(_status(outcome, dry=dry))


def _is_wanted(console: Console, planned: Outcome) -> bool:
    _print(console, show.plan(planned))
    number = sum(host.failed is None for host in planned)
    return click.confirm(f"Deploy to {number} host{'s' * (number != 1)}?", err=True)


def _report(outcome: Outcome, run: Run, *, dry: bool) -> dict[str, object]:
    hosts = {host.name: host.as_json() for host in outcome}
    return {"dry": dry, "deployed": outcome.is_executed, "hosts": hosts, "log": str(run.log)}


def _after(run: Run, fleet: Fleet, *, dry: bool) -> Iterable[Text]:
    """What to do next, and where more is said."""
    outcome = run.outcome
    if outcome.is_executed and outcome.failed:
        yield Text(f"Correct that, and deploy again: fleet deploy {run.inventory}")
    if outcome.is_executed and not outcome.failed:
        for host in fleet:
            yield from (Text(f"{what}: {url}") for what, url in fleet.urls(host))
        yield Text(f"Next, prove it: fleet verify {run.inventory}")
    elif outcome.failed:
        yield Text(f"All that was said is in {run.log}")
    elif not outcome.is_executed and not dry:
        yield Text("Nothing was deployed.")


def _status(outcome: Outcome, *, dry: bool) -> int:
    if outcome.failed:
        return FINDINGS
    # A plan that was told and declined has deployed nothing.
    return GOOD if outcome.is_executed or dry else FINDINGS


def _print(console: Console, lines: Iterable[Text]) -> None:
    for line in lines:
        # Where a line ends is the terminal's matter: a path is copied whole.
        console.print(line, soft_wrap=True)
