"""Units that run what their files say, whichever run wrote those files."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.kit.commands import Commands, or_journal, when_answers
from fleet.kit.events import tell_restart
from fleet.kit.facts.units import Unit, UnitState, generation, note_path, seen_files
from fleet.kit.listeners import is_own
from fleet.kit.paths import STARTED, UNITS
from fleet.kit.planned import Restart, will_restart, written
from fleet.kit.refuse import refusal

# Looks at whether a unit has taken what it was told to, five in a second.
_LOOKS = 150


@dataclass(frozen=True)
class Reload:
    """How a unit that runs takes other files.

    After a change of `files` it is only reloaded. `generation` is a command that prints which of
    its configurations it runs with: another one after each that it took, and nothing where it does
    not tell. systemctl knows only that it was asked to. `log` is where it says why it did not.
    """

    files: tuple[str, ...]
    generation: StringCommand
    log: str


@operation()
def run_unit(  # noqa: PLR0913 - each says one more thing of a start
    unit: str,
    files: list[str],
    *,
    reload: Reload | None = None,
    health_url: str | None = None,
    answers_within: int = 60,
    container: str | None = None,
) -> Commands:
    """Have `unit` enabled, active, and started with `files` as they are now.

    The decision compares what the process
    was started with, of which the host keeps a note, with the files, never with what this run
    changed: a run that died between an upload and a restart is finished by the next one. After a
    start the unit must answer on `health_url` within `answers_within` seconds; if not, its journal
    is shown, and what it was started with is not noted. It is the unit's own process that must
    listen there, or Docker for the `container` that it runs. It comes back from any state that
    systemd has for a unit: masked, failed, unknown while it runs.
    """
    current = host.get_fact(UnitState, unit=unit, files=files)
    if current.is_transient:
        yield refusal(
            f"{host.name}: {unit} was started by systemd-run, and systemd would delete the unit's "
            f"file when that one ends; run there: systemctl stop {unit}; then reboot, and deploy"
        )
        return
    loaded = current
    reload_files = list(reload.files) if reload else []
    if reload_files:
        loaded = host.get_fact(UnitState, unit=unit, files=reload_files, reloaded=True)
    verb = next_verb(current, loaded)
    verb = _foreseen(unit, current, verb, files, reload_files)
    noted = current.is_noted and loaded.is_noted
    if verb is None and current.is_enabled and noted:
        host.noop(f"{unit} runs as declared")
        return
    tell_restart(unit, verb)
    yield from _make_known(unit, current)
    if verb != "reload":
        yield _note(unit, files, reloaded=False)
    if reload_files:
        yield _note(unit, reload_files, reloaded=True)
    if verb:
        yield from _start(unit, verb, reload)
        if health_url:
            port = urlsplit(health_url).port
            assert port, f"{health_url} names no port"
            yield or_journal(
                StringCommand(
                    when_answers(health_url, seconds=answers_within),
                    ";",
                    is_own(unit, port, container),
                ),
                unit,
            )
    if verb != "reload":
        yield _keep_note(unit, reloaded=False)
    if reload_files:
        yield _keep_note(unit, reloaded=True)


def _foreseen(
    unit: str, current: Unit, verb: str | None, files: list[str], reload_files: list[str]
) -> str | None:
    """`verb`; of a unit that is only planned, what comes of files that are written before it."""
    if not current.is_active:
        return verb
    new = written([unit, f"{UNITS}/{unit}", *files])
    if verb == "restart" or new:
        will_restart(Restart(unit, "restart", new))
        return "restart"
    new = written(reload_files)
    if verb == "reload" or new:
        will_restart(Restart(unit, "reload", new))
        return "reload"
    return verb


@operation()
def unmask_unit(unit: str) -> Commands:
    """Have no mask left on `unit` by a run that died while it installed the package."""
    yield from _unmask(unit, host.get_fact(UnitState, unit=unit, files=[]))


@operation()
def enable_unit(unit: str) -> Commands:
    """Have `unit` start at boot, whether or not it runs now, and systemd know its newest file."""
    current = host.get_fact(UnitState, unit=unit, files=[])
    if current.is_enabled and current.is_read:
        host.noop(f"{unit} starts at boot")
        return
    yield from _make_known(unit, current)


@operation()
def stop_unit(unit: str) -> Commands:
    """Have `unit` disabled and not running; a unit that is not installed is left at that."""
    current = host.get_fact(UnitState, unit=unit, files=[])
    if current.is_active:
        will_restart(Restart(unit, "stop"))
    if current.is_enabled:
        yield StringCommand("systemctl disable --quiet", QuoteString(unit))
    # One whose file was removed runs on, and is as good as unknown.
    if current.active_state not in ("inactive", "failed"):
        yield or_journal(StringCommand("systemctl stop", QuoteString(unit)), unit)


def _make_known(unit: str, current: Unit) -> Commands:
    """Have systemd know `unit` as its files say, unmasked, and start it at boot."""
    yield from _unmask(unit, current)
    if not current.is_read or not current.is_active:
        yield StringCommand("systemctl daemon-reload")
    if not current.is_enabled:
        yield StringCommand("systemctl enable --quiet", QuoteString(unit))


def _unmask(unit: str, current: Unit) -> Commands:
    # Both kinds: behind one there may be the other.
    if current.file_state in ("masked", "masked-runtime"):
        yield StringCommand(
            "systemctl unmask --runtime --quiet", QuoteString(unit),
            "&& systemctl unmask --quiet", QuoteString(unit),
        )  # fmt: skip


def _start(unit: str, verb: str, reload: Reload | None) -> Commands:
    if verb == "reload":
        assert reload
        yield _taken(unit, reload)
        return
    # What a deploy asks for is no crash: it is not counted against the unit's limit of starts.
    yield StringCommand("systemctl reset-failed --quiet", QuoteString(unit), "2>/dev/null || true")
    yield or_journal(StringCommand("systemctl", verb, QuoteString(unit)), unit)


def _taken(unit: str, reload: Reload) -> StringCommand:
    """Reload `unit`, and wait until it runs with another configuration than before.

    If it does not, all that it has written to its log since is shown, and the beginning of that
    last: it is the reason.
    """
    log = QuoteString(reload.log)
    asked = or_journal(StringCommand("systemctl reload", QuoteString(unit)), unit)
    reason = f"{unit} runs on with the configuration of before: "
    return StringCommand(
        "size=$(stat -c %s", log, "2>/dev/null || echo 0); before=$(", reload.generation, ");",
        asked, "|| exit 1; n=0;",
        "until now=$(", reload.generation, '); [ -n "$now" ] && [ "$now" != "$before" ]; do',
        f"n=$((n + 1)); [ $n -lt {_LOOKS} ] || {{ said=$(tail -c +$((size + 1))", log,
        "); printf '%s\\n%s%s\\n' \"$said\"", QuoteString(reason),
        "\"$(printf '%s' \"$said\" | head -n 1)\"; exit 1; } >&2; sleep 0.2; done",
    )  # fmt: skip


def next_verb(current: Unit, loaded: Unit) -> str | None:
    """What `run_unit` would do to a unit; None when it runs as its files say."""
    if not current.is_read or current.is_outdated:
        return "restart"
    if not current.is_active:
        # One that is on its way up is waited for.
        return "start"
    return "reload" if loaded.is_outdated else None


def _note(unit: str, files: list[str], *, reloaded: bool) -> StringCommand:
    """See what is in `files` before the start: what changes meanwhile is not taken for read."""
    note = QuoteString(f"{note_path(unit, reloaded=reloaded)}.new")
    # By cat, which alone says that a disk is full; half of it would say nothing.
    return StringCommand(
        "install -d -m 700", STARTED, "&& {", seen_files(files), "; } | cat >", note,
        "|| { rm -f", note, "; exit 1; }",
    )  # fmt: skip


def _keep_note(unit: str, *, reloaded: bool) -> StringCommand:
    note = QuoteString(note_path(unit, reloaded=reloaded))
    new = QuoteString(f"{note_path(unit, reloaded=reloaded)}.new")
    whole = QuoteString(f"{note_path(unit, reloaded=reloaded)}.whole")
    return StringCommand(
        "{", generation(unit, reloaded=reloaded), "; cat", new, "; } | cat >", whole,
        "&& mv -f", whole, note, "&& rm -f", new, "|| { rm -f", whole, "; exit 1; }",
    )  # fmt: skip
