"""How far the loader of models is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fleet.kit.loaders import ItemProgress, LoaderJob
from fleet.kit.on_host.common import TO_BE_STARTED_ANEW
from tests.unit.facts import ask


class TestProgress:
    def test_models_under_way(self, systemctl: dict[str, str], tmp_path: Path) -> None:
        entry = {"phase": "pulling", "completed": 5, "total": 9, "rate": 1, "error": ""}
        path = tmp_path / "state.json"
        path.write_text(json.dumps({"models": {"gpt-oss:20b": entry}}))
        systemctl.update(ActiveState="activating", Result="success")
        job = ask(LoaderJob(), unit="m.service", path=str(path))
        assert job.is_running
        assert job.models == {"gpt-oss:20b": ItemProgress("pulling", 5, 9, 1, "")}
        assert str(job.models["gpt-oss:20b"]) == "pulling 55 % of 9 B, 1 B/s, 0m04s left"

    @pytest.mark.parametrize(
        ("sub_state", "restarts", "failed"),
        [
            ("auto-restart", "1", False), ("auto-restart", "3", True), ("auto-restart", "12", True),
            ("running", "12", False), ("start", "", False),
        ],
    )  # fmt: skip
    def test_loader_that_was_killed_is_waited_for_but_not_for_ever(
        self, systemctl: dict[str, str], tmp_path: Path, sub_state: str, restarts: str, failed: bool
    ) -> None:
        systemctl.update(ActiveState="activating", Result="signal", SubState=sub_state)
        systemctl.update(NRestarts=restarts)
        job = ask(LoaderJob(), unit="m.service", path=str(tmp_path / "none.json"))
        assert (job.has_failed, job.is_running) == (failed, not failed)

    def test_loader_that_is_to_be_started_anew_has_ended(
        self, systemctl: dict[str, str], tmp_path: Path
    ) -> None:
        """Its unit may be another one by now: the deploy starts that, instead of failing."""
        systemctl.update(
            ActiveState="activating",
            Result="exit-code",
            SubState="auto-restart",
            ExecMainStatus=str(TO_BE_STARTED_ANEW),
        )
        job = ask(LoaderJob(), unit="m.service", path=str(tmp_path / "none.json"))
        assert not job.has_failed
        assert not job.is_running

    @pytest.mark.parametrize(
        "text",
        [
            "[]", "null", '{"models": {"a:1": {"phase": "pulling"}}}', '{"models": {"a', "[" * 999,
            '{"models": {"a:1": {"phase": 7, "completed": 5, "total": 9, "rate": 1, "error": ""}}}',
        ],
        ids=lambda text: text[:30],
    )  # fmt: skip
    def test_state_file_that_is_none(
        self, systemctl: dict[str, str], tmp_path: Path, text: str
    ) -> None:
        """Whether the loader runs is known all the same."""
        (tmp_path / "state.json").write_text(text)
        systemctl.update(ActiveState="active", Result="success")
        job = ask(LoaderJob(), unit="m.service", path=str(tmp_path / "state.json"))
        assert (job.is_running, job.models) == (True, {})

    @pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
    def test_what_is_no_file_is_not_read(
        self, systemctl: dict[str, str], tmp_path: Path, kind: str
    ) -> None:
        """The loader's user writes that directory, and root looks."""
        path, other = tmp_path / "state.json", tmp_path / "other.json"
        entry = {"phase": "pulling", "completed": 5, "total": 9, "rate": 1, "error": ""}
        other.write_text(json.dumps({"models": {"gpt-oss:20b": entry}}))
        make = {"link": lambda: path.symlink_to(other), "directory": path.mkdir}
        make.get(kind, lambda: os.mkfifo(path))()
        systemctl.update(ActiveState="active", Result="success")
        job = ask(LoaderJob(), unit="m.service", path=str(path))
        assert (job.is_running, job.models) == (True, {})

    def test_models_before_their_first_state(
        self, systemctl: dict[str, str], tmp_path: Path
    ) -> None:
        systemctl.update(ActiveState="inactive", Result="success")
        job = ask(LoaderJob(), unit="m.service", path=str(tmp_path / "state.json"))
        assert job.models == {}
