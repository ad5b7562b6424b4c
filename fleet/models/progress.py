"""How far the models are, as a deploy shows it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from pyinfra.api import QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.facts.jobs import Job, _JobFact


class ModelsJob(_JobFact):
    """The run of `model_loader.py` whose state file is `path`.

    A run that failed and waits to be started again has failed, as far as anybody waits for it.
    """

    @override
    def command(self, unit: str, path: str) -> StringCommand:
        return StringCommand(
            self.show(unit),
            "cat",
            QuoteString(path),
            "2>/dev/null || echo '{}'; echo; systemctl show --value -p SubState --",
            QuoteString(unit),
        )

    @override
    def process(self, output: list[str]) -> Job:
        *lines, sub_state = output
        job = super().process(lines)
        return replace(job, active_state="failed") if sub_state == "auto-restart" else job


def model_progress(job: Job) -> dict[str, dict[str, Any]]:
    """Model name to its entry in the loader's state file."""
    models: dict[str, dict[str, Any]] = json.loads("".join(job.report) or "{}").get("models", {})
    return models
