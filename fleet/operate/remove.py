"""`fleet remove`: take back all that this project has put on a host."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import click
from pyinfra.api import Host, State
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.open import open_asked
from fleet.kit.errors import FleetError
from fleet.kit.facts.listeners import Listener, Listeners
from fleet.kit.footprint import Fate, Trace, found_of
from fleet.kit.removal import Found, find, take_back
from fleet.kit.run import failures, locked
from fleet.operate.ask import asked_together
from fleet.operate.command import COULD_NOT_TELL, FINDINGS, SCHEMA, json_option
from fleet.operate.hosts import chosen_hosts

_FORM = "fleet-remove/1"
_DEADLINE = 120  # seconds in which all hosts are to say what is on them


@dataclass
class Plan:
    """What of ours is on a host and goes; what stays, each with the reason.

    `removed` is what has gone, `opens` who can be reached once the firewall has, and `failed` why
    the host could not be asked, or not to the end.
    """

    goes: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    stays: list[tuple[str, str]] = field(default_factory=list)
    opens: list[str] = field(default_factory=list)
    failed: str | None = None

    def lines(self, name: str) -> Iterator[str]:
        """It, for whoever is asked whether that is meant."""
        if self.failed:
            yield f"{name}: {self.failed}"
        elif not self.goes:
            yield f"{name}: nothing to remove"
        for title, items in (
            ("goes", self.goes),
            ("stays", [f"{what}: {why}" for what, why in self.stays]),
            ("can be reached when its firewall is gone", self.opens),
        ):
            if items and not self.failed:
                yield f"{name}: {title}"
                yield from (f"    {item}" for item in items)


@click.command(
    epilog="Example: fleet remove inventory/prod.py gpu3.example.internal --models --yes"
)
@click.argument("inventory", type=click.Path(path_type=Path))
@click.argument("host", nargs=-1, required=True)
@click.option("--models", is_flag=True, help="Remove the models too, and whose they are.")
@click.option("--data", is_flag=True, help="Remove data, backups and logs too.")
@click.option("--at-once", is_flag=True, help="Do not drain first: cut requests off.")
@click.option("--dry", is_flag=True, help="Show what would go and what would stay, and end.")
@click.option("--yes", is_flag=True, help="Do not ask; needed where there is no terminal.")
@json_option
@click.pass_context
def remove(  # noqa: PLR0913 - an option each
    context: click.Context,
    inventory: Path,
    host: tuple[str, ...],
    *,
    models: bool,
    data: bool,
    at_once: bool,
    dry: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take back all that a deploy has put on each HOST of INVENTORY.

    Gateways send it nothing more, what runs in flight ends, then services, settings, secrets and
    last the firewall go. Models, data, backups and logs stay, as do packages. What goes and what
    stays is shown, and asked for once. Killed at any point, it can be run again.

    It ends with 1 when something of ours is still there, 2 when a host could not be asked.
    """
    fates: list[Fate] = ["goes", *(["models"] if models else []), *(["data"] if data else [])]  # type: ignore[list-item]
    state, fleet = open_asked(inventory)
    leaving = chosen_hosts(fleet, host)
    plans = _look(state, fleet, leaving, fates)
    if not as_json:
        for name, plan in plans.items():
            click.echo("\n".join(plan.lines(name)))
    going = [item for item in leaving if plans[item.name].goes]
    if not dry and going:
        if not yes:
            _ask({item.name: plans[item.name] for item in going}, is_shown=not as_json)
        with _telling_who_is_idle(inventory, plans) as retired:
            if not at_once:
                for name in _retire(context, inventory, fleet, going, leaving):
                    retired.add(name)
            state, fleet = open_asked(inventory)
            _remove(state, fleet, [fleet[item.name] for item in going], fates, plans)
    _tell(plans, as_json=as_json, dry=dry)
    if any(plan.failed for plan in plans.values()):
        context.exit(COULD_NOT_TELL)
    if not dry and any(plan.goes for plan in plans.values()):
        context.exit(FINDINGS)


def _ask(going: Mapping[str, Plan], *, is_shown: bool) -> None:
    if not sys.stdin.isatty():
        raise FleetError("nobody can be asked here, and nothing was changed; --yes if it is meant")
    for name, plan in () if is_shown else going.items():
        click.echo("\n".join(plan.lines(name)), err=True)
    names = ", ".join(going)
    if not click.confirm(f"Remove this from {names}?", err=True):
        raise FleetError("nothing was changed")


@contextlib.contextmanager
def _telling_who_is_idle(inventory: Path, plans: dict[str, Plan]) -> Iterator[set[str]]:
    """Say of each host in what this yields that nobody calls it any more, if it is not removed."""

    def words(name: str) -> str:
        return (
            f"{name} is drained, and gets no requests: run this again, or `fleet undrain "
            f"{inventory} {name}`"
        )

    retired: set[str] = set()
    try:
        yield retired
    except FleetError as error:
        raise FleetError("; ".join([str(error), *map(words, sorted(retired))])) from None
    for name in sorted(retired):
        if plans[name].failed and not plans[name].removed:
            click.echo(words(name), err=True)


def _retire(
    context: click.Context,
    inventory: Path,
    fleet: Fleet,
    going: Sequence[FleetHost],
    leaving: Sequence[FleetHost],
) -> Iterator[str]:
    """Have nobody who stays call the servers of those who go; the name of each that is drained."""
    names = {item.name for item in leaving}
    serving = {server.host.name for server in fleet.servers()}
    called = [
        item.name
        for item in going
        if item.name in serving and {other.name for other in fleet.callers(item)} - names
    ]
    for name in called:
        for command in [item.retire for item in fleet.capabilities if item.retire]:
            try:
                # What it says is of the way, and no part of what is printed for programs.
                with contextlib.redirect_stdout(sys.stderr):
                    context.invoke(command, inventory=inventory, host=name)
            except (click.ClickException, FleetError) as error:
                words = error.message if isinstance(error, click.ClickException) else str(error)
                raise FleetError(
                    f"{words}; nothing was removed, --at-once removes without it"
                ) from None
        yield name


def _connect(state: State, hosts: Sequence[FleetHost], plans: dict[str, Plan]) -> list[Host]:
    """Those of `hosts` that can be reached; of the others their plan says why not."""
    wanted = [state.inventory.get_host(item.name) for item in hosts]
    state.limit_hosts = wanted
    state.config.FAIL_PERCENT = 100
    # Raised when not one of them answers; each says why.
    with contextlib.suppress(PyinfraError):
        connect_all(state)
    why = failures(state)
    for item in wanted:
        if not item.connected:
            plans[item.name].failed = why.get(item.name) or "no connection"
    return [item for item in wanted if item.connected]


def _look(
    state: State, fleet: Fleet, leaving: Sequence[FleetHost], fates: Sequence[Fate]
) -> dict[str, Plan]:
    """Each host's name to what is there."""

    def ask(host: Host) -> Plan:
        groups = fleet.footprints(fleet[host.name])
        found = find(trace for traces in groups for trace in traces)
        listeners: tuple[Listener, ...] = host.get_fact(Listeners)
        return _plan(groups, found, listeners, fates)

    hosts = [state.inventory.get_host(item.name) for item in leaving]
    answers = asked_together(state, hosts, ask, _DEADLINE)
    return {
        name: answer if isinstance(answer, Plan) else Plan(failed=str(answer))
        for name, answer in answers.items()
    }


def _plan(
    groups: Sequence[Sequence[Trace]],
    found: Found,
    listeners: Sequence[Listener],
    fates: Sequence[Fate],
) -> Plan:
    plan, going = Plan(), []
    for traces in groups:
        ours = [item for item in traces if item.fate != "stays" and found_of(item, found)]
        going += [item for item in ours if item.fate in fates]
        for trace in traces:
            words = _outermost(found_of(trace, found))
            # Packages tell nothing of who installed them: they count beside what is ours.
            if trace.fate not in fates and words and ours:
                option = "" if trace.fate == "stays" else f"; --{trace.fate} removes it"
                plan.stays.append((", ".join(words), f"{trace.why}{option}"))
    plan.goes = _outermost([words for trace in going for words in found_of(trace, found)])
    parts = [part for trace in going for part in trace.parts]
    if any(part.kind == "table" and found.get(part) for part in parts):
        ended = [name for part in parts if part.kind == "unit" for name in found.get(part, ())]
        plan.opens = _opened(listeners, ended)
    return plan


def _outermost(names: Sequence[str]) -> list[str]:
    """Each once, and none that is in another one's directory."""
    shown = dict.fromkeys(names)
    return [
        name
        for name in shown
        if not any(str(above) in shown for above in PurePosixPath(name).parents)
    ]


def _opened(listeners: Sequence[Listener], ended: Sequence[str]) -> list[str]:
    """Who listens to others than the host itself, and is none of the units that end."""
    heard = (item for item in listeners if not (item.address and item.address.is_loopback))
    return list(
        dict.fromkeys(f"port {item.port}: {item}" for item in heard if not item.is_of(ended))
    )


def _remove(
    state: State,
    fleet: Fleet,
    going: Sequence[FleetHost],
    fates: Sequence[Fate],
    plans: dict[str, Plan],
) -> None:
    """Remove, and have in each plan what is still there."""
    hosts = _connect(state, going, plans)
    with locked(hosts):
        for host in hosts:
            add_op(
                state,
                take_back,
                name="Take back what is ours",
                groups=fleet.footprints(fleet[host.name]),
                fates=list(fates),
                host=host,
            )
        try:
            run_ops(state)
        except PyinfraError as error:
            click.echo(f"Error: {error}", err=True)
        why = failures(state)
        for name, now in _look(state, fleet, [fleet[item.name] for item in hosts], fates).items():
            before = plans[name]
            before.failed = why.get(name) or now.failed
            if not now.failed:
                before.removed = [item for item in before.goes if item not in now.goes]
                before.goes = now.goes
    disconnect_all(state)


def _tell(plans: dict[str, Plan], *, as_json: bool, dry: bool) -> None:
    if as_json:
        hosts = {
            name: {
                "goes": plan.goes,
                "removed": plan.removed,
                "stays": [{"what": what, "why": why} for what, why in plan.stays],
                "opens": plan.opens,
                "failed": plan.failed,
            }
            for name, plan in plans.items()
        }
        click.echo(json.dumps({SCHEMA: _FORM, "dry": dry, "hosts": hosts}, indent=1))
        return
    if dry:
        return
    for name, plan in plans.items():
        if plan.removed and not plan.goes and not plan.failed:
            click.echo(
                f"{name}: removed; take it out of the inventory, and deploy the others, or deploy "
                "to have it all again"
            )
        for item in plan.goes if plan.removed or plan.failed else ():
            click.echo(f"{name}: still there: {item}", err=True)
        if plan.failed:
            click.echo(f"{name}: {plan.failed}", err=True)
