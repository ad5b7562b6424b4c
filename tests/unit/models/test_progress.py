"""How far the loader of models is."""

from __future__ import annotations

import json
from pathlib import Path

from fleet.models.progress import ModelsJob, model_progress
from tests.unit.facts import ask


class TestProgress:
    def test_models_under_way(self, systemctl: dict[str, str], tmp_path: Path) -> None:
        entry = {"phase": "pulling", "completed": 5, "total": 9, "rate": 1, "error": ""}
        path = tmp_path / "state.json"
        path.write_text(json.dumps({"models": {"gpt-oss:20b": entry}}))
        systemctl.update(ActiveState="activating", Result="success")
        job = ask(ModelsJob(), unit="m.service", path=str(path))
        assert job.is_running
        assert model_progress(job) == {"gpt-oss:20b": entry}

    def test_models_before_their_first_state(
        self, systemctl: dict[str, str], tmp_path: Path
    ) -> None:
        systemctl.update(ActiveState="inactive", Result="success")
        job = ask(ModelsJob(), unit="m.service", path=str(tmp_path / "state.json"))
        assert model_progress(job) == {}
