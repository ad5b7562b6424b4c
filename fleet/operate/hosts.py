"""Which hosts of an inventory a command is about."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

import click

from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.open import open_inventory
from fleet.kit.errors import FleetError

_MOST = 20  # names that a refusal lists


def chosen_hosts(fleet: Fleet, names: Iterable[str], *, or_groups: bool = False) -> list[FleetHost]:
    """The hosts that `names` names; all of them without a name.

    Each is there once, in the inventory's order. With `or_groups` a group stands for its hosts.

    Raises:
        FleetError: the inventory has no such host.
    """
    wanted = set(names)
    groups = {group for host in fleet for group in host.groups} if or_groups else set()
    if unknown := sorted(wanted - groups - {host.name for host in fleet}):
        raise FleetError("\n".join(_unknown(name, fleet, sorted(groups)) for name in unknown))
    chosen = wanted - groups
    return [
        host for host in fleet if not wanted or host.name in chosen or wanted & groups & host.groups
    ]


def _unknown(name: str, fleet: Fleet, groups: list[str]) -> str:
    hosts = [host.name for host in fleet]
    near = get_close_matches(name, [*hosts, *groups], 1)
    there = ", ".join([*hosts[:_MOST], *(["..."] if len(hosts) > _MOST else [])])
    if groups:
        there += f", and the groups {', '.join(groups)}"
    hint = f"did you mean {near[0]}?" if near else f"there are {there}"
    return f"{name}: no such host{' or group' * bool(groups)} in this inventory; {hint}"


def _complete(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Names of hosts and groups that begin so; none when the inventory is not to be had."""
    try:
        fleet = open_inventory(context.params["inventory"], CAPABILITIES)[1]
    except FleetError:
        # It is no time to say what is wrong: the command itself will.
        return []
    names = [*(host.name for host in fleet), *sorted({g for host in fleet for g in host.groups})]
    return [name for name in names if name.startswith(begun)]


inventory_argument = click.argument("inventory", type=click.Path(path_type=Path))
host_argument = click.argument("host", shell_complete=_complete)
hosts_argument = click.argument("hosts", metavar="[HOST]...", nargs=-1, shell_complete=_complete)
