"""The file of an inventory, before pyinfra reads it.

pyinfra makes hosts of what it can use of the file, leaves out the rest without a word, and knows
nothing of that afterwards. `config.py` has every file checked here first.
"""

from __future__ import annotations

import ast
import runpy
import traceback
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from fleet.declare import group_data
from fleet.declare.project import project_of
from fleet.kit.errors import FleetError, SettingsError

_EVERYONE = "all"


_asked: list[Path] = []


def asked() -> Path | None:
    """The file that was checked last: pyinfra keeps its path nowhere. None without any."""
    return _asked[-1] if _asked else None


def check(path: Path, groups: Collection[str]) -> None:
    """Refuse an inventory file of which pyinfra would lose hosts, or find others than are meant.

    `groups` are those that say what a host runs.

    Raises:
        FleetError: the file cannot be run.
        SettingsError: groups are not what pyinfra takes for one, or have hosts that `all` has not.
    """
    _asked[:] = [path]
    try:
        declared = runpy.run_path(str(path))
    except Exception as error:
        raise failure(path, error) from None
    ours = {*groups, _EVERYONE}
    problems = [f"{path}: {line}" for line in _problems(declared, path.stem, ours)]
    problems += [f"{path}:{line}" for line in _written_twice(path, declared)]
    problems += _unread_data(path, declared, ours)
    if problems:
        raise SettingsError(problems)


def _unread_data(path: Path, declared: dict[str, Any], ours: set[str]) -> list[str]:
    """Files of group_data that no host has; before one is reached, as they say how to log in."""
    found = {name: hosts for name, value in declared.items() if (hosts := _hosts(value))}
    # A connector brings groups of its own, which are known later.
    if any(host.startswith("@") for hosts in found.values() for host in hosts):
        return []
    return list(group_data.problems(path, project_of(path), {*ours, path.stem, *found}))


def failure(path: Path | str, error: Exception) -> FleetError:
    """`error`, which running the file `path` has raised, as one line with its place."""
    if isinstance(error, SyntaxError):
        return FleetError(f"{error.filename}:{error.lineno}: {error.msg}")
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    place = f"{path}:{lines[-1]}" if lines else path
    return FleetError(f"{place}: {type(error).__name__}: {error}")


def _problems(declared: dict[str, Any], stem: str, ours: set[str]) -> list[str]:
    problems = [*_declared_twice(declared), *_told_apart(declared)]
    groups: dict[str, list[str]] = {}
    for name, value in declared.items():
        if name.startswith("_"):
            continue
        hosts = _hosts(value)
        if hosts is not None:
            groups[name] = hosts
        # pyinfra passes over other lists, and takes a tuple apart.
        elif name in ours or isinstance(value, tuple):
            problems.append(f"{name}: {_fix(name, value, ours)}")
    if not problems and not any(groups.values()):
        problems.append('no host is declared; write gpu = ["gpu1.example.internal"]')
    everyone = groups.get(_EVERYONE)
    # A connector names its hosts later.
    if problems or everyone is None or any(host.startswith("@") for host in everyone):
        return problems
    for name, hosts in groups.items():
        lost = [host for host in hosts if host not in everyone]
        if lost and (name in ours or isinstance(declared[name], tuple)):
            problems.append(
                f"{name}: {', '.join(lost)} would be left out, for want of a place in `all`; add "
                f"it there, or delete `all` and declare its data in group_data/{stem}.py"
            )
    return problems


def _declared_twice(declared: dict[str, Any]) -> Iterator[str]:
    """Hosts that a list has twice: pyinfra makes one of them."""
    for name, value in declared.items():
        if name.startswith("_"):
            continue
        for host, times in Counter(_hosts(value) or ()).items():
            if times > 1:
                yield (
                    f"{name}: {host} is there {times} times, and one host would come of it; give "
                    "each machine a name of its own, and how to reach it as ssh_hostname"
                )


def _written_twice(path: Path, declared: dict[str, Any]) -> Iterator[str]:
    """Groups that the file has twice: the hosts of the first are gone when it has been run."""
    first: dict[str, int] = {}
    for node in ast.parse(path.read_bytes()).body:
        if not isinstance(node, ast.Assign):
            continue
        used = {item.id for item in ast.walk(node.value) if isinstance(item, ast.Name)}
        for name in [item.id for item in node.targets if isinstance(item, ast.Name)]:
            if name.startswith("_"):
                continue
            if name in first and name not in used and _hosts(declared.get(name)) is not None:
                yield (
                    f"{node.lineno}: {name} is there from line {first[name]} on already, and those "
                    "hosts would be lost; make one list of both"
                )
            first.setdefault(name, node.lineno)


def _told_apart(declared: dict[str, Any]) -> Iterator[str]:
    """Keys of a host that several groups declare for it, with values that differ: one is lost."""
    told: dict[tuple[str, str], tuple[str, Any]] = {}
    for name, value in declared.items():
        if name.startswith("_") or _hosts(value) is None:
            continue
        for host in value[0] if isinstance(value, tuple) else value:
            host_name, data = host if isinstance(host, tuple) else (host, {})
            for key, item in data.items():
                first, other = told.setdefault((host_name, key), (name, item))
                if other != item:
                    yield (
                        f"{name}: {host_name} has another {key} here than in {first}, and one of "
                        "the two would be lost; declare it once. If these are two machines, give "
                        "each a name of its own"
                    )


def _hosts(value: Any) -> list[str] | None:
    """The names in a group: a list of hosts, or a tuple of it and data; None when it is neither."""
    if isinstance(value, tuple):
        value, data = value if len(value) == 2 else (None, None)
        if not isinstance(data, dict):
            return None
    if not isinstance(value, list):
        return None
    names = [
        host[0]
        if isinstance(host, tuple) and len(host) == 2 and isinstance(host[1], dict)
        else host
        for host in value
    ]
    return names if all(isinstance(name, str) for name in names) else None


def _fix(name: str, value: Any, ours: set[str]) -> str:
    host = _first_text(value)
    other = "" if name in ours else f"; or call it _{name}, if it is no group"
    return (
        "not a list of hosts, so pyinfra would take other hosts from it, or none; write "
        f'{name} = ["{host}"], or {name} = [("{host}", {{...}})] with what differs for it{other}'
    )


def _first_text(value: Any) -> str:
    if isinstance(value, list | tuple | dict) and value:
        return _first_text(next(iter(value)))
    return value if isinstance(value, str) else "gpu1.example.internal"
