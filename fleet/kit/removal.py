"""Taking back what a capability has put on a host: what lies there decides, not what is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.kit.apt import apt
from fleet.kit.commands import Commands, or_journal
from fleet.kit.facts.traces import Traces, asked
from fleet.kit.facts.units import note_path
from fleet.kit.footprint import ORDER, Fate, Kind, Part, Trace, found_of
from fleet.kit.paths import UNITS

Found = Mapping[Part, Sequence[str]]


def find(traces: Iterable[Trace]) -> Found:
    """What is on the current host of `traces`, and is ours."""
    parts = list(dict.fromkeys(part for trace in traces for part in trace.parts))
    if not parts:
        return {}
    found = host.get_fact(Traces, parts=asked(parts))
    return {parts[index]: names for index, names in found.items()}


@operation()
def take_back(groups: Sequence[Sequence[Trace]], fates: Sequence[Fate] = ("goes",)) -> Commands:
    """Have nothing of those traces on the host that meet one of `fates`; say what stays.

    A group is a capability's, and is gone before the next one is begun. What runs ends before its
    files go, and a run that dies in between leaves what the next one takes up: each thing tells by
    itself whether it is ours.
    """
    found = find(trace for traces in groups for trace in traces)
    is_gone = True
    for traces in groups:
        going = [item for item in traces if item.fate in fates and found_of(item, found)]
        if going:
            is_gone = False
            # Anew: of what several have, as jobs that run, the groups before may have ended some.
            yield from _take_back(going, find(going))
            _tell_what_stays([item for item in traces if item.fate not in fates], found)
    if is_gone:
        host.noop("nothing to take back")


def _take_back(going: Sequence[Trace], found: Found) -> Commands:
    for trace in going:
        if trace.undo:
            yield from trace.undo()
    for kind in ORDER[:-1]:
        yield from _remove(kind, _names(going, found, kind))
    yield from _remove_folders([_with_own_folders(trace, found) for trace in going])


def _with_own_folders(trace: Trace, found: Found) -> Trace:
    """Where something else of it was there, nothing more has to tell that its folders are ours.

    What told may be gone by now: with this trace, or with a removal of before that kept this one.
    """
    if not any(found.get(part) for part in trace.parts if part.kind != "folder"):
        return trace
    parts = [replace(part, sign="") if part.kind == "folder" else part for part in trace.parts]
    return replace(trace, parts=tuple(parts))


def _remove_folders(going: Sequence[Trace]) -> Commands:
    """Those that are empty only by now, and then what is empty without them."""
    before: list[tuple[Part, str]] = []
    while (named := _names(going, find(going), "folder")) != before:
        yield from _remove("folder", named)
        before = named


def _names(traces: Iterable[Trace], found: Found, kind: Kind) -> list[tuple[Part, str]]:
    return [
        (part, name)
        for trace in traces
        for part in trace.parts
        if part.kind == kind
        for name in found.get(part, ())
    ]


def _tell_what_stays(traces: Iterable[Trace], found: Found) -> None:
    for trace in traces:
        if names := found_of(trace, found):
            host.log(f"stays: {', '.join(names)}: {trace.why}")


def _remove(kind: Kind, named: Sequence[tuple[Part, str]]) -> Commands:
    names = [name for _, name in named]
    if not names:
        return
    quoted = [QuoteString(name) for name in names]
    match kind:
        case "unit":
            for name in names:
                yield _end(name)
        case "hold":
            yield from apt("apt-mark unhold", *quoted)
        case "sysctl":
            keys = [(part.name.partition("=")[0], part.back) for part, _ in named]
            yield StringCommand("sysctl -qw", *(f"{key}={value}" for key, value in keys))
        case "file" | "tree" | "record":
            yield StringCommand("rm -rf --one-file-system --", *quoted, *_reload(names))
        case "folder":
            # The innermost first: what one is in may be empty then.
            for name in sorted(names, reverse=True):
                yield StringCommand("rmdir --ignore-fail-on-non-empty --", QuoteString(name))
        case _:
            for name in names:
                yield _ONE[kind](name)


def _end(unit: str) -> StringCommand:
    """Stop `unit`, at once where it is on its way up, and start it at no boot."""
    name = QuoteString(unit)
    notes = [QuoteString(note_path(unit, reloaded=each)) for each in (False, True)]
    # What is not to be enabled says so, and what is only in memory cannot be.
    return or_journal(
        StringCommand(
            "systemctl disable --quiet", name, "2>/dev/null; systemctl stop", name,
            "&& { systemctl reset-failed --quiet", name, "2>/dev/null || true; } && rm -f", *notes,
        ),
        unit,
    )  # fmt: skip


def _reload(paths: Sequence[str]) -> list[str]:
    is_unit = any(PurePosixPath(path).is_relative_to(UNITS) for path in paths)
    return ["&& systemctl daemon-reload"] if is_unit else []


def _project(name: str) -> StringCommand:
    """Containers and networks; volumes are another matter, and may be the only copy."""
    mine = StringCommand("--filter", QuoteString(f"label=com.docker.compose.project={name}"))
    return StringCommand(
        "docker ps -aq", mine, "| xargs -r docker rm --force >/dev/null",
        "&& docker network ls -q", mine, "| xargs -r docker network rm >/dev/null",
    )  # fmt: skip


def _table(name: str) -> StringCommand:
    """Its unit may have deleted it when it was stopped."""
    return StringCommand("! nft list table", name, ">/dev/null 2>&1 || nft delete table", name)


def _volume(name: str) -> StringCommand:
    return StringCommand("docker volume rm", QuoteString(name), ">/dev/null")


def _user(name: str) -> StringCommand:
    """With the group of the same name, which some systems leave."""
    quoted = QuoteString(name)
    return StringCommand(
        "userdel", quoted, "&& { ! getent group", quoted, ">/dev/null || groupdel", quoted, "; }"
    )


def _group(name: str) -> StringCommand:
    return StringCommand("groupdel", QuoteString(name))


_ONE = {
    "project": _project,
    "table": _table,
    "volume": _volume,
    "volumes": _volume,
    "user": _user,
    "group": _group,
}
