"""What a capability may have put on a host, and what becomes of it when it is taken back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from fleet.kit.paths import LIB, UNITS

Kind = Literal[
    "unit",  # a unit that runs or starts at boot; its file is another part
    "project",  # containers and networks of a Compose project
    "hold",  # a package that apt may not change
    "sysctl",  # a setting of the running kernel, `key=value`; `back` is what it is without us
    "file",  # a file, or a link
    "tree",  # a directory with all that is in it
    "table",  # of nftables, as in `inet llm_fleet`
    "volume",  # of Docker
    "volumes",  # ... of a Compose project
    "user",
    "group",
    "record",  # a file that goes when all else is gone
    "folder",  # a directory, once it is empty
    "package",
]

# What runs goes before what it is made of, and what tells that something is ours after that.
ORDER: Final[tuple[Kind, ...]] = (
    "unit", "project", "volume", "volumes", "hold", "sysctl", "file", "tree", "table", "user",
    "group", "record", "folder",
)  # fmt: skip

# Whether it goes: always; with `--models` or `--data`, as it may be the only copy; or never.
Fate = Literal["goes", "models", "data", "stays"]


@dataclass(frozen=True)
class Part:
    """One thing, or those that match a shell pattern.

    `sign` tells ours from somebody else's: see the head of `kit/on_host/find-traces`.
    """

    kind: Kind
    name: str
    sign: str = ""
    back: str = ""

    def covers(self, path: str) -> bool:
        """Whether a path is of this part."""
        if self.kind == "tree":
            return any(fnmatchcase(top, self.name) for top in _tops(path))
        return self.kind in ("file", "record", "folder") and fnmatchcase(path, self.name)


def _tops(path: str) -> Iterator[str]:
    names = path.split("/")
    yield from ("/".join(names[:count]) for count in range(2, len(names) + 1))


@dataclass(frozen=True)
class Trace:
    """Parts that belong together: a row of README's table.

    `where` and `what` are that row's, in Markdown. `why` says of what does not go by itself why it
    stays. `undo` are commands that take back what is no part, when any of the parts is there.
    """

    where: str
    what: str
    parts: tuple[Part, ...] = ()
    fate: Fate = "goes"
    why: str = ""
    undo: Callable[[], Generator[Any, None, None]] | None = field(default=None, compare=False)


def files(*paths: str, sign: str = "") -> tuple[Part, ...]:
    """A part for each path; of one without our name in it, the file itself tells."""
    return tuple(
        Part("file", path, sign or ("" if "llm-fleet" in path else "marked")) for path in paths
    )


def units(*names: str) -> tuple[Part, ...]:
    """Units with their files, which are ours by their name or their first line."""
    return tuple(
        part
        for name in names
        for part in (
            Part("unit", name, "" if "llm-fleet" in name else "marked"),
            *files(f"{UNITS}/{name}"),
        )
    )


def dropins(*paths: str) -> tuple[Part, ...]:
    """Drop-ins, and the directories that were made for them."""
    parents = (path.rpartition("/")[0] for path in paths)
    return (*files(*paths), *folders(*parents))


def folders(*paths: str) -> tuple[Part, ...]:
    """Directories that go when they are empty, as long as anything of ours is on the host."""
    return tuple(Part("folder", path, "" if "llm-fleet" in path else LIB) for path in paths)


def packages(*names: str) -> tuple[Part, ...]:
    """Packages, a part each."""
    return tuple(Part("package", name) for name in names)


def holds(sign: str, *names: str) -> tuple[Part, ...]:
    """What apt may not change, for as long as the file `sign` is there."""
    return tuple(Part("hold", name, sign) for name in names)


def repository(name: str) -> tuple[Part, ...]:
    """The source and the key of an `AptRepository`, by its name."""
    return files(
        f"/etc/apt/sources.list.d/llm-fleet-{name}.sources",
        f"/etc/apt/keyrings/llm-fleet-{name}.gpg",
    )


def backups(name: str, folder: str) -> Trace:
    """The backups of a capability that has a setting `<name>_backup_dir`."""
    return Trace(
        f"`/var/backups/llm-fleet-{name}` (or `{name}_backup_dir`)",
        "backups of it",
        (Part("file", f"{folder}/{name}-*.tar"), *folders(folder)),
        "data",
        "they may be the only copy",
    )


def without(traces: Iterable[Trace], kept: Iterable[Trace]) -> tuple[Trace, ...]:
    """`traces` without the parts of `kept`, which somebody else needs."""
    needed = {(part.kind, part.name) for trace in kept for part in trace.parts}

    def rest(trace: Trace) -> tuple[Part, ...]:
        return tuple(part for part in trace.parts if (part.kind, part.name) not in needed)

    return tuple(replace(trace, parts=rest(trace)) for trace in traces)


def words(part: Part, name: str) -> str:
    """What was found of a part, as an operator is told of it."""
    if part.kind in ("file", "tree", "record", "folder"):
        return name
    return f"{_WORDS[part.kind]} {name}"


_WORDS: dict[Kind, str] = {
    "unit": "unit",
    "project": "containers of",
    "hold": "hold on",
    "sysctl": "kernel setting",
    "table": "nftables table",
    "volume": "volume",
    "volumes": "volume",
    "user": "user",
    "group": "group",
    "package": "package",
}


def found_of(trace: Trace, found: Mapping[Part, Sequence[str]]) -> list[str]:
    """What is there of a trace, in words."""
    return [words(part, name) for part in trace.parts for name in found.get(part, ())]
