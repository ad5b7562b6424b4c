"""Units that run what their files say, whichever run wrote those files."""

from __future__ import annotations

from urllib.parse import urlsplit

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.kit.commands import Commands, or_journal, when_answers
from fleet.kit.facts.units import Unit, UnitState
from fleet.kit.listeners import is_own


@operation()
def run_unit(  # noqa: PLR0913 - each says one more thing of a start
    unit: str,
    files: list[str],
    *,
    reload_files: list[str] | None = None,
    health_url: str | None = None,
    answers_within: int = 60,
    uncounted: bool = False,
    container: str | None = None,
) -> Commands:
    """Have `unit` enabled, active, and started after the last change of `files`.

    After a change of `reload_files` it is only reloaded; its children are then the younger ones.
    The decision compares the running process with the files, never with what this run changed: a
    run that died between an upload and a restart is finished by the next one. After a start the
    unit must answer on `health_url` within `answers_within` seconds; if not, its journal is shown.
    It is the unit's own process that must listen there, or Docker for the `container` that it runs.
    `uncounted` is for a unit that allows itself few starts in a time: what a deploy asks for is no
    crash.
    """
    current = host.get_fact(UnitState, unit=unit, files=files)
    verb = _verb(current)
    if verb is None and reload_files:
        loaded = host.get_fact(UnitState, unit=unit, files=reload_files)
        verb = "reload" if loaded.newest_file > loaded.worker_started else None
    if verb is None and current.is_enabled:
        host.noop(f"{unit} runs as declared")
        return
    yield from _unmask(unit, current)
    if current.needs_daemon_reload or not current.is_active:
        yield StringCommand("systemctl daemon-reload")
    if not current.is_enabled:
        yield StringCommand("systemctl enable --quiet", QuoteString(unit))
    if verb and uncounted:
        yield StringCommand(
            "systemctl reset-failed --quiet", QuoteString(unit), "2>/dev/null || true"
        )
    if verb:
        yield or_journal(StringCommand("systemctl", verb, QuoteString(unit)), unit)
        if health_url:
            port = urlsplit(health_url).port
            assert port, f"{health_url} names no port"
            answers = when_answers(health_url, seconds=answers_within)
            yield or_journal(StringCommand(answers, ";", is_own(unit, port, container)), unit)


@operation()
def unmask_unit(unit: str) -> Commands:
    """Have no mask left on `unit` by a run that died while it installed the package."""
    yield from _unmask(unit, host.get_fact(UnitState, unit=unit, files=[]))


@operation()
def enable_unit(unit: str) -> Commands:
    """Have `unit` start at boot, whether or not it runs now, and systemd know its newest file."""
    current = host.get_fact(UnitState, unit=unit, files=[])
    if not current.is_enabled or current.needs_daemon_reload:
        yield StringCommand(
            "systemctl daemon-reload && systemctl enable --quiet", QuoteString(unit)
        )


@operation()
def stop_unit(unit: str) -> Commands:
    """Have `unit` disabled and not running; a unit that is not installed is left at that."""
    current = host.get_fact(UnitState, unit=unit, files=[])
    if current.load_state != "not-found" and (current.is_active or current.is_enabled):
        yield StringCommand("systemctl disable --now --quiet", QuoteString(unit))


def _unmask(unit: str, current: Unit) -> Commands:
    if current.file_state == "masked-runtime":
        yield StringCommand("systemctl unmask --runtime --quiet", QuoteString(unit))


def _verb(current: Unit) -> str | None:
    stale = current.needs_daemon_reload or current.newest_file > current.started
    return "restart" if stale or not current.is_active else None
