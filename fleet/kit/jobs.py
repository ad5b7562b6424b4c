"""Start long work on a host, show how far it is, and wait for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from typing import Any
from weakref import WeakKeyDictionary

import gevent  # type: ignore[import-untyped]
from pyinfra import host
from pyinfra.api import Host, QuoteString, StringCommand, operation
from pyinfra.context import ctx_host

from fleet.kit.commands import Commands, fail, or_journal
from fleet.kit.connection.prefix import UNIT_OPTIONS
from fleet.kit.facts.jobs import AnyJob, FailedJobs, LoggedRun
from fleet.kit.journal import evidence_of
from fleet.kit.on_host.common import size_text

# Host to the unit that an operation waits for there, and that does without it.
awaited: WeakKeyDictionary[Host, str] = WeakKeyDictionary()
POLL = 1.0  # seconds between two looks at the host


def start_job(unit: str, lines: list[str], *command: Any) -> StringCommand:
    """Start a transient unit that a lost connection does not stop; one that runs is left alone.

    `lines` are of its `[Service]`: what it is kept from. `command` may begin with options of
    systemd-run.
    """
    return StringCommand(
        "systemctl is-active --quiet", unit, "|| {",
        "systemctl reset-failed --quiet", unit, "2>/dev/null;",
        "systemd-run --quiet", UNIT_OPTIONS, "--unit", unit, *properties(lines), *command, "; }",
    )  # fmt: skip


def properties(lines: list[str]) -> list[Any]:
    """Options of systemd-run that give its unit the `lines`."""
    return [option for line in lines for option in ("--property", QuoteString(line))]


def run_job(
    unit: str,
    start: StringCommand,
    look: Callable[[], AnyJob],
    describe: Callable[[AnyJob], str],
    timeout: float | None = None,
) -> Commands:
    """Start `unit` and wait for its end; `start` must leave a unit that runs already alone.

    The host works on by itself: a lost connection or an interrupted deploy stops nothing, and the
    next deploy attaches. `describe` turns what `look` saw into a line of progress, which is shown
    when it changed: at once on a terminal, every ten seconds elsewhere.
    """
    here: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    awaited[here] = unit
    try:
        # A start, too, is systemd's from here on.
        yield or_journal(start, unit)
        job = yield from _awaited(unit, look, describe, timeout)
    finally:
        awaited.pop(here, None)
    if job is not None and job.has_failed:
        yield _told(unit)


def _awaited(
    unit: str, look: Callable[[], AnyJob], describe: Callable[[AnyJob], str], timeout: float | None
) -> Generator[StringCommand, None, AnyJob | None]:
    """The job once it has ended; None, and a failure, when it has not within `timeout` seconds."""
    every = 1.0 if sys.stderr.isatty() else 10.0
    began = shown_at = time.monotonic()
    shown = ""
    while (job := look()).is_running:
        now = time.monotonic()
        if timeout is not None and now - began > timeout:
            yield fail(
                f"{host.name}: {unit} still runs after {timeout:.0f} s ({describe(job)}); it goes "
                "on by itself, run the deploy again to wait for it"
            )
            return None
        line = describe(job)
        if line != shown and now - shown_at >= every:
            host.log(line)
            shown, shown_at = line, now
        gevent.sleep(POLL)
    return job


def _told(unit: str) -> StringCommand:
    """What a job that failed said. One of ours alone is then forgotten.

    Its failure is known from here on; kept, it would leave the host "degraded" for ever.
    """
    name = QuoteString(unit)
    return StringCommand(
        evidence_of(unit), '>&2; if [ "$(systemctl show --value -p Transient --', name,
        ')" = yes ]; then systemctl reset-failed --', name, "; fi; exit 1",
    )  # fmt: skip


@operation()
def forget_failed_jobs() -> Commands:
    """Have no job marked as failed that an earlier deploy was not there to tell of."""
    units = host.get_fact(FailedJobs)
    if units:
        yield StringCommand("systemctl reset-failed --", *map(QuoteString, units))


def newest_line(job: LoggedRun) -> str:
    """What a job that tells how far it is in its journal said last."""
    return job.line or "starting"


class Meter:
    """The rate of something that only tells how much is done, counted from the first reading."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._already: int | None = None

    def read(self, completed: int, total: int) -> str:
        """`progress` of a transfer that has now `completed` of `total` bytes."""
        if self._already is None:
            self._already = completed
        elapsed = max(time.monotonic() - self._began, POLL)
        return progress(completed, total, (completed - self._already) / elapsed)


def progress(completed: int, total: int, rate: float) -> str:
    """`43 % of 13.8 GB, 118.2 MB/s, 1m07s left`; sizes in bytes, rate in bytes a second."""
    if total <= 0:
        return f"{size_text(completed)} so far"
    text = f"{100 * completed // total} % of {size_text(total)}"
    if rate <= 0:
        return text
    left = round((total - completed) / rate)
    minutes, seconds = divmod(left, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s"
    return f"{text}, {size_text(rate)}/s, {clock} left"
