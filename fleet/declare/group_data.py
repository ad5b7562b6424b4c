"""Files of `group_data` that pyinfra reads and no host has, or that it does not read at all.

pyinfra makes a group of any file's name, and says nothing when no host is in it.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from fleet.declare.refusals import hint

_EVERYONE = "all"
_asked: list[Path] = []
_PYINFRAS = ("config.py", "deploy.py")


def also(paths: Iterable[str | Path]) -> None:
    """Have pyinfra's `--group-data` of this process looked at too: folders, or single files."""
    _asked[:] = [Path(path).absolute() for path in paths]


def folders(inventory: Path, project: Path) -> list[Path]:
    """The folders that pyinfra reads for the file `inventory`, where it is run in `project`."""
    found = dict.fromkeys(
        (folder / "group_data").resolve() for folder in (project, inventory.resolve().parent)
    )
    return [folder for folder in found if folder.is_dir()]


def problems(inventory: Path, project: Path, groups: Collection[str]) -> Iterator[str]:
    """A line for each file that none of `groups` reads, and no other inventory that shares it."""
    for path in _asked:
        if not path.exists():
            yield f"--group-data {path}: there is no such folder, and pyinfra would say nothing"
    for folder in [*folders(inventory, project), *filter(Path.exists, _asked)]:
        places = {folder.parent} if folder not in _asked else {folder.parent, project}
        others = (name for place in places for name in _of_other_inventories(place))
        known = {_EVERYONE, *groups, *others}
        for path in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
            if path.name.startswith(("_", ".")):
                continue
            if path.suffix == ".py" and path.stem not in known:
                yield (
                    f"{path}: no group is called {path.stem}, so no host would have what it "
                    f"declares; {_fix(path.stem, known)}"
                )
            elif path.suffix != ".py" and path.name.partition(".")[0] in known:
                yield f"{path}: pyinfra reads files that end with .py only; write it as one"


def _fix(stem: str, known: set[str]) -> str:
    names = ", ".join(sorted(known))
    fix = hint(stem, known)
    return f"{fix if fix.startswith('did') else 'rename it'} (there are {names})"


def _of_other_inventories(project: Path) -> Iterator[str]:
    """The groups of inventories beside `group_data`, or in its `inventory`: they share its files.

    Those files are read, not run: what a group is called is a name at their outermost level.
    """
    for path in (*project.glob("*.py"), *project.glob("inventory/**/*.py")):
        names = set() if path.name in _PYINFRAS else set(_assigned(path))
        if names:
            yield from (path.stem, *names)


def _assigned(path: Path) -> Iterable[str]:
    """The names at a file's outermost level; none of a file that is no Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                yield target.id
