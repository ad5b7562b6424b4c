"""pyinfra's own command line, which takes for success what is none.

A host that `--limit` names and nobody has, an inventory that is not there: pyinfra warns, does
nothing, and ends with 0. Its configuration file is the one place of ours that it runs before that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
from pyinfra.api import Host, State
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import BaseStateCallback, StateStage
from pyinfra.context import ctx_state

from fleet.kit.errors import FleetError
from fleet.kit.interrupt import end_when_interrupted
from fleet.kit.run import FORCE, failures

_FAILED = 1


def guard(context: click.Context) -> None:
    """Have the run of `context` end well only when it did what it was asked for.

    Raises:
        FleetError: what it is asked for cannot be meant.
    """
    asked = context.params
    if problems := list(misunderstood(asked)):
        raise FleetError("\n".join(problems))
    state: State = ctx_state.get()  # type: ignore[no-untyped-call]
    init = state.init

    def judged_init(inventory: Inventory, *arguments: Any, **options: Any) -> None:
        if problems := list(unmatched(asked, inventory)):
            raise FleetError("\n".join(problems))
        init(inventory, *arguments, **options)
        if asked.get("no_wait"):
            state.add_callback_handler(_Failing())  # type: ignore[no-untyped-call]

    state.init = judged_init  # type: ignore[method-assign]
    end_when_interrupted(lambda: state)
    context.call_on_close(lambda: _end(state, asked))


class _Failing(BaseStateCallback):
    """Counts a host as failed whose step failed: with `--no-wait` pyinfra itself does not."""

    @staticmethod
    def operation_host_error(
        state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        if not state.ops[host][op_hash].global_arguments["_ignore_errors"]:
            state.failed_hosts.add(host)
            state.active_hosts.discard(host)


def unmatched(asked: Mapping[str, Any], inventory: Inventory) -> Iterator[str]:
    """What of the arguments fits no host of `inventory`, with what there is."""
    names = [host.name for host in inventory]
    if not names:
        yield (
            f"{asked['inventory']}: no such inventory file, and no host either; nothing was "
            "deployed"
        )
        return
    problems = list(_without_match(asked, inventory, names))
    yield from problems
    if not problems and not _chosen(asked, inventory):
        yield "no host is left by --limit and --exclude; nothing was deployed"


def _without_match(
    asked: Mapping[str, Any], inventory: Inventory, names: list[str]
) -> Iterator[str]:
    groups = sorted(name for name, hosts in inventory.groups.items() if hosts)
    there = f"there are the hosts {', '.join(names)} and the groups {', '.join(groups)}"
    for option in ("limit", "exclude"):
        for pattern in asked.get(option) or ():
            if pattern not in groups and not any(fnmatch(name, pattern) for name in names):
                yield f"--{option} {pattern}: no such host or group; {there}"


def _chosen(asked: Mapping[str, Any], inventory: Inventory) -> list[str]:
    def matching(patterns: Iterable[str]) -> set[str]:
        return {
            host.name
            for pattern in patterns
            for host in inventory
            if host in inventory.groups.get(pattern, ()) or fnmatch(host.name, pattern)
        }

    limit = asked.get("limit")
    names = [host.name for host in inventory if not limit or host.name in matching(limit)]
    return [name for name in names if name not in matching(asked.get("exclude") or ())]


def misunderstood(asked: Mapping[str, Any]) -> Iterator[str]:
    """Arguments that pyinfra takes for something else, with the right way of writing."""
    if (force := os.environ.get(FORCE, "1")) != "1":
        yield f"{FORCE} = {force!r} in the environment: write 1 to end other runs, or unset it"
    for option in ("limit", "exclude"):
        for text in asked.get(option) or ():
            if "," in text or " " in text.strip():
                each = " ".join(f"--{option} {name}" for name in text.replace(",", " ").split())
                yield (
                    f"--{option} {text!r}: pyinfra takes this for the name of one host; "
                    f"write {each}"
                )
    path = str(asked["inventory"])
    names = path.split(",")
    if Path(path).is_file() or any(name.startswith("@") for name in names):
        return
    if Path(path).is_dir():
        yield f"{path}: a directory; name the inventory file in it"
    elif any("/" in name or name.endswith(".py") for name in names):
        yield f"{path}: no such inventory file; nothing was deployed"


def _end(state: State, asked: Mapping[str, Any]) -> None:
    """Name what failed; end with a failure when nothing was done of what was asked for."""
    found = failures(state) if state.initialised else {}
    if found:
        click.echo("--> Failed hosts:", err=True)
    for name, why in found.items():
        click.echo(f"    {name}: {why}", err=True)
    error = sys.exc_info()[1]
    if not isinstance(error, SystemExit) or error.code:
        return
    if found:
        sys.exit(_FAILED)
    if _was_to_deploy(asked) and state.current_stage < StateStage.Execute:
        click.echo("--> Nothing was deployed", err=True)
        sys.exit(_FAILED)


def _was_to_deploy(asked: Mapping[str, Any]) -> bool:
    looks = ("dry", "debug_operations", "debug_facts")
    return (
        all(str(item).endswith(".py") for item in asked["operations"])
        and not any(asked.get(name) for name in looks)
        # Without --yes it only tells what would be changed.
        and (bool(asked.get("yes")) or not asked.get("json_output"))
    )
