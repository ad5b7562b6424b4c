"""Programs of hosts that have large things there, in a unit of their own: a deploy's view of them.

A loader compares the host with its configuration (`--check`), works in its unit, and writes down
how far each thing is: a model, or weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pyinfra import host
from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.commands import Commands, fail, or_journal
from fleet.kit.facts.jobs import Job, show_job
from fleet.kit.files import ManagedFile
from fleet.kit.jobs import progress, run_job
from fleet.kit.on_host.common import TO_BE_STARTED_ANEW, size_text
from fleet.kit.on_host.outside import FormError, parsed

_CHECK = {
    "models": [str], "pending": {...: str}, "undeclared": {...: {"size": int, "in_use": bool}},
    "to_fetch?": int,
}  # fmt: skip
_STATE = {
    "models?": {
        ...: {"phase": str, "completed": int, "total": int, "rate": int, "error": str},
    },
}
_FEW = ("", "0", "1", "2")  # restarts after which a loader may still do it
# In these phases of the loader nothing is done about a model.
_QUIET_PHASES = ("waiting", "ready")


@dataclass(frozen=True)
class LoaderCheck:
    """What a loader would do: `pending` is a thing's name to the reason, `undeclared` another one's
    to its size in bytes and whether it is in use. `models` are the declared ones, `auto` by the
    host's choice; `to_fetch` is how many bytes are to come, where the loader tells. Where it is not
    known, `why` says so, unless the loader is not there yet."""

    is_known: bool = False
    models: tuple[str, ...] = ()
    pending: dict[str, str] = field(default_factory=dict)
    undeclared: dict[str, dict[str, Any]] = field(default_factory=dict)
    why: str = ""
    to_fetch: int | None = None


class LoaderState(FactBase[LoaderCheck]):
    """A loader's own comparison of the host with `config`, which need not be installed yet.

    Not known while the loader, or a module of it, is still to be installed.
    """

    # The program, after the modules that it needs.
    program: ClassVar[tuple[ManagedFile, ...]]

    default = LoaderCheck

    @override
    def command(self, config: str) -> StringCommand:
        paths = [file.path for file in self.program]
        return StringCommand(
            "! ls", *paths, ">/dev/null 2>&1 || printf %s", QuoteString(config),
            "| /usr/bin/python3", paths[-1], "--check /dev/stdin",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> LoaderCheck:
        if not output:
            return LoaderCheck()
        try:
            what = f"what {self.program[-1].path} --check says"
            answer = parsed("\n".join(output), _CHECK, what)
        except FormError as error:
            return LoaderCheck(why=str(error))
        return LoaderCheck(
            True, tuple(answer["models"]), answer["pending"], answer["undeclared"],
            to_fetch=answer.get("to_fetch"),
        )  # fmt: skip


@dataclass(frozen=True)
class ItemProgress:
    """A thing in the loader's state file: sizes in bytes, `rate` in bytes a second.

    `error` is what the attempt before failed by, empty without one.
    """

    phase: str
    completed: int
    total: int
    rate: float
    error: str

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> ItemProgress:
        """It as the state file has it, which has more than is shown."""
        return cls(
            entry["phase"], entry["completed"], entry["total"], entry["rate"], entry["error"]
        )

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is done about it at the moment."""
        return self.phase in _QUIET_PHASES

    def __str__(self) -> str:
        """`pulling 43 % of 13.8 GB, 118.2 MB/s, 1m07s left`, and the error of before."""
        before = f" (before: {self.error})" if self.error else ""
        return f"{self.phase} {progress(self.completed, self.total, self.rate)}{before}"


@dataclass(frozen=True)
class LoaderRun(Job):
    """A run of the loader: name of each thing to how far it is."""

    models: Mapping[str, ItemProgress] = field(default_factory=dict)


class LoaderJob(FactBase[LoaderRun]):
    """The run of a loader's `unit` whose state file is `path`.

    One that is killed is started again at once, and one that is killed again and again has failed,
    as far as anybody waits for it. One that ended because its configuration was replaced has ended,
    and nothing more.
    """

    default = LoaderRun

    @override
    def command(self, unit: str, path: str) -> StringCommand:
        return StringCommand(
            show_job(unit),
            show_state(path),
            "; systemctl show --value -p SubState --",
            QuoteString(unit),
            "; systemctl show --value -p ExecMainStatus --",
            QuoteString(unit),
            "; systemctl show --value -p NRestarts --",
            QuoteString(unit),
        )

    @override
    def process(self, output: list[str]) -> LoaderRun:
        active_state, result, *lines, sub_state, status, restarts = output
        if sub_state == "auto-restart":
            if status == str(TO_BE_STARTED_ANEW):
                active_state = "inactive"
            elif restarts not in _FEW:
                active_state = "failed"
        return LoaderRun(active_state, result, read_state("".join(lines)))


def show_state(path: str) -> StringCommand:
    """Prints the loader's state file `path`, or `{}`, and a line feed.

    The loader's user could lay a link or a FIFO there: neither is followed, or waited for.
    """
    return StringCommand(
        "dd iflag=nofollow,nonblock,fullblock bs=1M count=1 status=none",
        QuoteString(f"if={path}"),
        "2>/dev/null || echo '{}'; echo",
    )


def read_state(text: str) -> dict[str, ItemProgress]:
    """Each thing of a state file to how far it is; none of what is half a file, or no such file."""
    try:
        models = parsed(text or "{}", _STATE).get("models") or {}
    except FormError:
        return {}
    return {name: ItemProgress.from_entry(entry) for name, entry in models.items()}


@dataclass(frozen=True)
class Loader:
    """A loader as a deploy runs it; `what` it provides, in a word or two, such as `the models`."""

    what: str
    unit: str
    state: str

    def provide(
        self, check: LoaderCheck, look: Callable[[], LoaderCheck], wait_timeout: float | None
    ) -> Commands:
        """Have done what `check`, its comparison with what is declared, says is left to do.

        `look` compares again. A loader that runs already is left alone and waited for; what it was
        not told of is then done by another run. `wait_timeout` is in seconds; None starts it and
        does not wait.
        """
        if check.is_known and not check.pending:
            host.noop(f"{', '.join(check.models)} as declared")
            return
        for name, reason in check.pending.items():
            host.log(f"{name} {reason}")
        if wait_timeout is None:
            yield or_journal(self._start(), self.unit)
            return
        yield from self._run(wait_timeout)
        left = look()
        if left.pending:
            yield from self._run(wait_timeout)
            left = look()
        if left.pending:
            reasons = "; ".join(f"{name} {reason}" for name, reason in left.pending.items())
            yield or_journal(fail(f"{host.name}: {reasons}"), self.unit)
        elif left.why:
            yield fail(f"{host.name}: whether {self.what} are as declared is not known: {left.why}")

    def _run(self, wait_timeout: float) -> Commands:
        def describe(job: LoaderRun) -> str:
            parts = [f"{name}: {item}" for name, item in job.models.items() if not item.is_quiet]
            return "; ".join(parts) or f"{self.what}: starting"

        def see() -> LoaderRun:
            return host.get_fact(LoaderJob, unit=self.unit, path=self.state)

        yield from run_job(self.unit, self._start(), see, describe, wait_timeout)

    def _start(self) -> StringCommand:
        """Start the loader now. One that runs goes on, and one that failed need not wait."""
        return StringCommand(f"systemctl daemon-reload; systemctl start {self.unit}")


def report_undeclared(check: LoaderCheck, setting: str, *, prune: bool) -> None:
    """Tell of what is there and not declared; `setting` is the one that has it removed."""
    for name, entry in sorted(check.undeclared.items()):
        fate = f"{setting} = True removes it"
        if prune:
            fate = "in use, so it stays" if entry["in_use"] else "it is removed"
        host.log(f"{name} ({size_text(entry['size'])}) is not declared: {fate}")
