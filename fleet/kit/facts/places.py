"""Directories of ours as a host has them: what links lead to, and who could turn the way there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

# A line of `namei -l`: type, permissions, owner and group of one step of the way.
_STEP = re.compile(r"([a-z-])([rwxsStT-]{9})\S* +(\S+) +(\S+) .*")
_DIRECTORY = "directory"


@dataclass(frozen=True)
class Place:
    """A path, and the one that it is once every link is followed.

    `kind` is what is there in stat's words, empty for nothing; `user`, `group` and octal `mode` are
    its own, `holds` a few of the names in it. `writers` are those besides root who can put another
    thing in the place of a step on the way; `linked_by` those who own a link on it. `roots_alone`
    says that nobody but root can turn `resolved` itself. `broken` is a link that leads nowhere.
    """

    path: str
    resolved: str
    kind: str = ""
    user: str = ""
    group: str = ""
    mode: str = ""
    holds: tuple[str, ...] = ()
    writers: frozenset[str] = frozenset()
    linked_by: frozenset[str] = frozenset()
    roots_alone: bool = True
    broken: str | None = None

    @property
    def is_directory(self) -> bool:
        """Whether there is a directory."""
        return self.kind == _DIRECTORY

    @property
    def paths(self) -> tuple[str, ...]:
        """The path, and where it leads when that is another one."""
        return tuple(dict.fromkeys((self.path, self.resolved)))


class Places(FactBase[dict[str, Place]]):
    """Path to `Place` for each of `paths`, whether or not there is anything."""

    default = dict

    @override
    def command(self, paths: list[str]) -> StringCommand:
        # The way down to what exists is looked at, not the rest of the path: a link that leads
        # nowhere is there, and is no directory.
        return StringCommand(
            "for p in", *map(QuoteString, paths), "; do"
            ' real=$(realpath -m -- "$p" 2>/dev/null); echo "place=$p"; echo "real=$real";'
            ' c=$p; while ! [ -e "$c" ] && ! [ -L "$c" ]; do c=${c%/*}; c=${c:-/}; done;'
            ' [ -e "$c" ] || echo "broken=$c";'
            ' namei -l -- "$p" 2>/dev/null | sed "s/^/step=/";'
            ' namei -l -- "$real" 2>/dev/null | sed "s/^/last=/";'
            ' if [ -e "$real" ]; then stat -c "is=%U %G %a %F" -- "$real"; fi;'
            ' ! [ -d "$real" ] || ls -A -- "$real" | head -n 20 | sed "s/^/holds=/"; done',
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> dict[str, Place]:
        found: list[dict[str, list[str]]] = []
        for line in output:
            name, _, value = line.partition("=")
            if name == "place":
                found.append({})
            found[-1].setdefault(name, []).append(value)
        places = map(_place, found)
        return {place.path: place for place in places}


def _place(values: dict[str, list[str]]) -> Place:
    user, group, mode, kind = (values.get("is") or ["   "])[0].split(" ", 3)

    def steps(name: str) -> list[tuple[str, ...]]:
        return [match.groups() for line in values.get(name, []) if (match := _STEP.match(line))]

    def writers(name: str) -> frozenset[str]:
        # Who owns the place itself is another question.
        above = steps(name)[:-1] if kind else steps(name)
        return frozenset(writer for step in above for writer in _writers(*step))

    return Place(
        path=values["place"][0],
        resolved=values["real"][0],
        kind=kind,
        user=user,
        group=group,
        mode=mode,
        holds=tuple(values.get("holds", [])),
        writers=writers("step") | writers("last"),
        linked_by=frozenset(owner for what, _, owner, _ in steps("step") if what == "l") - {"root"},
        roots_alone=not writers("last"),
        broken=values.get("broken", [None])[0],
    )


def _writers(what: str, permissions: str, owner: str, group: str) -> Iterator[str]:
    """Who besides root may change what a directory, one step of the way, has below it."""
    if what != "d":
        return
    if owner != "root":
        yield owner
    if permissions[4] == "w" and group != "root":
        yield f"the group {group}"
    if permissions[7] == "w":
        yield "everybody"
