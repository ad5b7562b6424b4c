"""Python programs that run on hosts, each with the modules that it needs there."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from fleet.kit.files import ManagedFile
from fleet.kit.paths import LIB

_ROOMS = Path(__file__).resolve().parents[1]


def program_files(room: str, *names: str) -> list[ManagedFile]:
    """Programs of `fleet/<room>/on_host` and every module that they import, as on a host.

    A module comes before whatever imports it: a run that dies in between leaves no new program
    without its modules.
    """
    modules: dict[str, str] = {}
    for name in names:
        _collect(room, name, modules)
    return [
        ManagedFile(f"{LIB}/{module}.py", text, mode="755" if module in names else "644")
        for module, text in modules.items()
    ]


def host_modules(room: str) -> dict[str, Path]:
    """What a program of `room` may import by its plain name: the modules there and in `kit`."""
    folders = [_ROOMS / room / "on_host", _ROOMS / "kit" / "on_host"]
    files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
    return {path.stem: path for path in files if path.stem != "__init__"}


@cache  # the same few texts, for every host of a deploy
def imports_of(text: str) -> tuple[str, ...]:
    """The modules that a source text imports, by their whole names."""
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return tuple(found)


def _collect(room: str, name: str, modules: dict[str, str]) -> None:
    if name in modules:
        return
    known = host_modules(room)
    text = known[name].read_text()
    for imported in imports_of(text):
        if imported in known:
            _collect(room, imported, modules)
    modules[name] = text
