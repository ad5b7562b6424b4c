"""`fleet drift`: what a deploy would change, for somebody who looks each night."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from fleet.declare.open import open_asked
from fleet.operate import show
from fleet.operate.command import COULD_NOT_TELL, FINDINGS, GOOD, json_option, print_json
from fleet.operate.hosts import chosen_hosts, hosts_argument, inventory_argument
from fleet.operate.outcome import Outcome
from fleet.operate.run import Run, ends_on_sigterm


def status(outcome: Outcome) -> int:
    """The command's exit status."""
    if any(host.would for host in outcome):
        return FINDINGS
    return COULD_NOT_TELL if outcome.failed else GOOD


@click.command()
@inventory_argument
@hosts_argument
@json_option
@click.pass_context
def drift(context: click.Context, inventory: Path, hosts: tuple[str, ...], as_json: bool) -> None:
    """Tell what a deploy would change on every HOST, or all of INVENTORY.

    Nothing is changed. The status is 1 when there is drift on any host; 2 when there is none, but
    a host could not be asked, or a deploy would be refused there; and 0 when there is none at all.

    Example: fleet drift inventory/prod.py --json
    """
    ends_on_sigterm()
    fleet = open_asked(inventory)[1]
    run = Run(fleet, inventory, chosen_hosts(fleet, hosts, or_groups=True), ["--dry"])
    outcome = run.carry_out(lambda _: False)
    run.need_told()
    if as_json:
        print_json("drift", {"hosts": {host.name: host.planned() for host in outcome}})
    else:
        console = Console(highlight=False, emoji=False)
        for line in show.plan(outcome):
            console.print(line, soft_wrap=True)
    context.exit(status(outcome))
