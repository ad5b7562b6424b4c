"""The state of systemd units, and whether they run with the files that are on the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.paths import STARTED


@dataclass(frozen=True)
class Unit:
    """A unit as it runs.

    `is_outdated` is whether it may run with something else than the files that were asked about;
    `is_noted` whether the host has a note of what each of them was at the start (or reload);
    `is_transient` whether systemd-run made it, even when there is another file by now.
    """

    load_state: str
    active_state: str
    file_state: str
    needs_daemon_reload: bool
    is_outdated: bool
    is_noted: bool
    is_transient: bool = False

    @property
    def is_active(self) -> bool:
        """Whether the unit runs (or, for a one-shot unit, has run and counts as active)."""
        return self.active_state == "active"

    @property
    def is_enabled(self) -> bool:
        """Whether the unit starts at boot."""
        return self.file_state == "enabled"

    @property
    def is_read(self) -> bool:
        """Whether systemd knows the unit as its files on the disk say."""
        return self.load_state == "loaded" and not self.needs_daemon_reload


ABSENT = Unit("not-found", "inactive", "", False, False, False)


def note_path(unit: str, *, reloaded: bool) -> str:
    """Where the host keeps what `unit` was started with, or has reloaded since."""
    return f"{STARTED}/{unit}{'.reloaded' if reloaded else ''}"


def seen_files(files: list[str]) -> StringCommand:
    """Print a line a file: inode, change time and size in one word; SHA-256 of its content; path.

    Of a link it is the link itself: one that was switched counts as changed. What is no file, or
    not there, has `-`; a FIFO is not read. The second part of the first word is whole seconds.
    """
    return StringCommand(
        "for f in ''",
        *[StringCommand("", QuoteString(path)) for path in files],
        '; do [ -n "$f" ] || continue;'
        ' i=$(TZ=UTC0 stat -c %i:%Z:%s:%z -- "$f" 2>/dev/null || echo -);'
        ' if [ -L "$f" ]; then s=$(readlink -- "$f" | sha256sum | cut -c1-64);'
        ' elif [ -f "$f" ]; then s=$(sha256sum < "$f" | cut -c1-64); else s=-; fi;'
        ' echo "$(echo "$i" | tr " " _) $s $f"; done',
        _separator="",
    )


def generation(unit: str, *, reloaded: bool) -> StringCommand:
    """Print what is another word after each start of `unit`; `reloaded`, after each reload too.

    A reload of nginx makes new workers: the start of the youngest, in clock ticks since boot (field
    22 of /proc/PID/stat, counted after the parenthesis that ends the name).
    """
    invocation = StringCommand("systemctl show -p InvocationID --value --", QuoteString(unit))
    if not reloaded:
        return StringCommand('echo "$(', invocation, ')"')
    return StringCommand(
        'echo "$(', invocation, '):$(p=$(systemctl show -p MainPID --value --', QuoteString(unit),
        '); for c in $(cat "/proc/$p/task/$p/children" 2>/dev/null); do'
        ' sed "s/.*) //" "/proc/$c/stat" 2>/dev/null | cut -d" " -f20; done'
        ' | sort -n | tail -n 1)"',
    )  # fmt: skip


class UnitState(FactBase[Unit]):
    """State of `unit`, and of the `files` that it reads when it starts, or when it is `reloaded`.

    What it was started with is known from the note that `run_unit` leaves (`STARTED`), so no clock
    decides. A file is compared by its content. When somebody else has started the unit since then,
    it must be the very same file, untouched: nobody knows what was in it meanwhile. The file that
    the main process executes needs no note. Of what there is no note yet (an older version of this
    project has deployed here, or a package started the unit), the times decide, once.
    """

    @override
    @staticmethod
    def default() -> Unit:
        return ABSENT

    @override
    def command(self, unit: str, files: list[str], *, reloaded: bool = False) -> StringCommand:
        # The clock of the boot is read before the wall clock, so that a busy host makes files look
        # older, not younger, than they are.
        return StringCommand(
            "u=", QuoteString(unit),
            ";systemctl show -p LoadState -p ActiveState -p UnitFileState"
            ' -p NeedDaemonReload -p Transient -p ExecMainStartTimestampMonotonic -- "$u";'
            'pid=$(systemctl show -p MainPID --value -- "$u");'
            'echo "Ticks=$(getconf CLK_TCK)";'
            'echo "Now=$(cut -d" " -f1 /proc/uptime) $(date +%s.%N)";'
            'echo "Started=$(sed "s/.*) //" "/proc/${pid:-0}/stat" 2>/dev/null'
            ' | cut -d" " -f20)";'
            'echo "Generation=$(', generation(unit, reloaded=reloaded), ')";'
            '[ "${pid:-0}" = 0 ] || for f in \'\'',
            *[StringCommand("", QuoteString(path)) for path in files],
            '; do [ -z "$f" ] || ! [ "$f" -ef "/proc/$pid/exe" ] || echo "Executed=$f"; done;',
            "sed s/^/Note=/ ", QuoteString(note_path(unit, reloaded=reloaded)),
            " 2>/dev/null;",
            seen_files(files), " | sed s/^/File=/",
            _separator="",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> Unit:
        values: dict[str, list[str]] = {}
        for line in output:
            name, _, value = line.partition("=")
            values.setdefault(name, []).append(value)

        def first(name: str) -> str:
            return values.get(name, [""])[0]

        then, *noted = values.get("Note", [""])
        notes = {path: (identity, content) for identity, content, path in map(_parts, noted)}
        is_same_run = then == first("Generation")
        started = _started(first)
        outdated, unnoted = False, False
        for identity, content, path in map(_parts, values.get("File", [])):
            if path in values.get("Executed", []):
                unnoted |= path not in notes
            elif path not in notes:
                unnoted = True
                outdated |= _changed_after(identity, started, first("Now"))
            elif is_same_run:
                outdated |= notes[path][1] != content
            else:
                outdated |= notes[path] != (identity, content)
        return Unit(
            load_state=first("LoadState"),
            active_state=first("ActiveState"),
            file_state=first("UnitFileState"),
            needs_daemon_reload=first("NeedDaemonReload") == "yes",
            is_outdated=outdated,
            is_noted=bool(then) and not unnoted,
            is_transient=first("Transient") == "yes",
        )


def _parts(line: str) -> tuple[str, str, str]:
    identity, content, path = line.split(" ", 2)
    return identity, content, path


def _started(first: Callable[[str], str]) -> float:
    """When the process started that has the files, in seconds since boot; 0.0 without any."""
    # Of a reloaded one the youngest child.
    _, _, worker = first("Generation").partition(":")
    if ticks := worker or first("Started"):
        return float(ticks) / float(first("Ticks"))
    # A one-shot unit has no process left to ask.
    return float(first("ExecMainStartTimestampMonotonic") or 0) / 1e6


def _changed_after(identity: str, started: float, now: str) -> bool:
    if identity == "-":
        return False
    uptime, wall = (float(part) for part in now.split())
    return int(identity.split(":")[1]) - wall + uptime > started
