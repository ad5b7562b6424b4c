"""How far the models are, as a deploy shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.facts.jobs import Job, show_job
from fleet.kit.jobs import progress
from fleet.kit.on_host.common import TO_BE_STARTED_ANEW
from fleet.kit.on_host.outside import FormError, parsed

_STATE = {
    "models?": {
        ...: {"phase": str, "completed": int, "total": int, "rate": int, "error": str},
    },
}
_FEW = ("", "0", "1", "2")  # restarts after which a loader may still do it
# In these phases of the loader nothing is done about a model.
_QUIET_PHASES = ("waiting", "ready")


@dataclass(frozen=True)
class ModelProgress:
    """A model in the loader's state file: sizes in bytes, `rate` in bytes a second.

    `error` is what the attempt before failed by, empty without one.
    """

    phase: str
    completed: int
    total: int
    rate: float
    error: str

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> ModelProgress:
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
    """A run of the loader: name of each model to how far it is."""

    models: Mapping[str, ModelProgress] = field(default_factory=dict)


class ModelsJob(FactBase[LoaderRun]):
    """The run of `model_loader.py` whose state file is `path`.

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


def read_state(text: str) -> dict[str, ModelProgress]:
    """Each model of a state file to how far it is; none of what is half a file, or no such file."""
    try:
        models = parsed(text or "{}", _STATE).get("models") or {}
    except FormError:
        return {}
    return {name: ModelProgress.from_entry(entry) for name, entry in models.items()}
