"""What all ways of bringing a model to the disk share: how far it is, room, and its creation."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from common import ProgramError
from job_state import Phase, State
from model_check import Comparison, Model
from ollama_api import LOAD_TIMEOUT, Api
from transfer import PATIENT, Limits, Progress, Watch, check_space

HASH_RATE = 20_000_000  # bytes a second of the slowest disk: how long a check may be silent
_MAKE_ROOM = "make room there, or move ollama_models_dir"


class Work:
    """Works through `api`, and tells `state` how far it is.

    `completed` is how many bytes of the present model came, at best.
    """

    def __init__(self, api: Api, compared: Comparison, limits: Limits, state: State) -> None:
        self.api, self.compared, self.limits, self.state = api, compared, limits, state
        self.store = compared.store
        self.completed = 0

    def meter(self, model: Model, phase: Phase) -> Callable[[int], None]:
        """A report for hashing: the phase is shown only when something is hashed."""
        done, total = 0, self.store.size(model["name"])
        watch = Watch(PATIENT, time.monotonic())

        def report(length: int) -> None:
            nonlocal done
            done += length
            rate = watch.saw(done, total, time.monotonic())
            self.show(model, Progress(done, total, rate), phase=phase)

        return report

    def show(self, model: Model, at: Progress, **values: Any) -> None:
        """Tell how far a model is; it may stay off the disk for half a second."""
        self.state.update(
            model["name"],
            now=False, completed=at.completed, total=at.total, rate=int(at.rate), **values,
        )  # fmt: skip

    def follow(self, model: Model, at: Progress) -> None:
        """Show a transfer, whose new bytes make an attempt worth while."""
        self.completed = max(self.completed, at.completed)
        self.show(model, at)

    def check_space(self, need: int) -> None:
        """Raise RefusedError unless so many bytes fit into the models directory."""
        check_space(self.store.root, need, self.limits.disk_reserve, _MAKE_ROOM)

    def make(self, model: Model, origin: dict[str, Any]) -> None:
        """Have Ollama create the model as it is defined, and remember of what."""
        name = model["name"]
        self.state.update(name, phase=Phase.CREATING)
        definition = {key: value for key, value in model["definition"].items() if value}
        request = {"model": name, **origin, **definition}
        status: dict[str, Any] = {}
        for line in self.api.stream("/api/create", request, LOAD_TIMEOUT):
            status = line
        if status.get("status") != "success":
            raise ProgramError(status.get("error") or f"the creation ended after {status!r}")
        if manifest := self.store.manifest(name):
            definition_hash = self.compared.definition(model)
            self.store.remember(name, definition=definition_hash, created=manifest.digest)
