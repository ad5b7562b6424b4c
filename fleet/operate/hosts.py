"""Which hosts of an inventory a command is about."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import click

from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import Fleet
from fleet.declare.open import open_inventory
from fleet.kit.errors import FleetError


def chosen(fleet: Fleet, asked: tuple[str, ...]) -> list[str]:
    """The names of the hosts that `asked` names, by host or group; all of them when it is empty.

    They are in the inventory's order.

    Raises:
        FleetError: something is neither a host nor a group that has one.
    """
    groups = {group for host in fleet for group in host.groups}
    names = [host.name for host in fleet]
    if unknown := [name for name in asked if name not in groups and name not in names]:
        raise FleetError("\n".join(_unknown(name, names, groups) for name in unknown))
    return [host.name for host in fleet if not asked or {host.name, *host.groups} & {*asked}]


def _unknown(name: str, names: list[str], groups: set[str]) -> str:
    near = get_close_matches(name, [*names, *groups], 1)
    hint = (
        f"did you mean {near[0]}?" if near else f"there are the groups {', '.join(sorted(groups))}"
    )
    return f"{name}: no such host or group in this inventory; {hint}"


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
