"""How far the loader is, as the deploy shows it and the next person reads it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from common import write

SAVE_EVERY = 0.5  # seconds


class Phase(str, Enum):
    """What is done about a model just now; a run ends with each of them ready or failed."""

    WAITING = "waiting"
    CHECKING = "checking"
    PULLING = "pulling"
    VERIFYING = "verifying"
    FETCHING = "fetching"
    IMPORTING = "importing"
    CREATING = "creating"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass
class Entry:
    """One model: bytes, bytes a second, the last error, and how often it was tried."""

    phase: Phase = Phase.WAITING
    completed: int = 0
    total: int = 0
    rate: int = 0
    error: str = ""
    attempts: int = 0

    @property
    def left(self) -> int | None:
        """Seconds that the rest takes, where a rate is known."""
        return round((self.total - self.completed) / self.rate) if self.rate else None


@dataclass
class State:
    """All models of a run, in the file `path`."""

    path: Path
    models: dict[str, Entry]
    finished: bool = False
    ok: bool = False
    notes: list[str] = field(default_factory=list)
    _saved: float = 0.0

    def update(self, name: str, *, now: bool = True, **values: Any) -> None:
        """Change a model's entry; without `now` it may stay off the disk for half a second."""
        for key, value in values.items():
            setattr(self.models[name], key, value)
        if now or time.monotonic() - self._saved >= SAVE_EVERY:
            self.save()

    def all_are(self, phase: Phase) -> bool:
        """Whether every model is in `phase`."""
        return all(entry.phase is phase for entry in self.models.values())

    def failed(self, name: str) -> bool:
        """Whether a model is given up for this run."""
        return self.models[name].phase is Phase.FAILED

    def save(self) -> None:
        """Write it down."""
        self._saved = time.monotonic()
        models = {name: asdict(item) | {"left": item.left} for name, item in self.models.items()}
        about = {"finished": self.finished, "ok": self.ok, "notes": self.notes}
        write(self.path, json.dumps({**about, "models": models}), 0o644)
