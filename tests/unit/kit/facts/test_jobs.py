"""What is asked of a job that a host does in the background."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.kit.facts.jobs import Download, FetchJob, Job
from tests.unit.facts import ask


class TestJobs:
    @pytest.mark.parametrize(
        ("active_state", "is_running", "has_failed"),
        [
            ("active", True, False),
            ("activating", True, False),
            ("deactivating", True, False),
            ("inactive", False, False),
            ("failed", False, True),
        ],
    )
    def test_states(self, active_state: str, is_running: bool, has_failed: bool) -> None:
        job = Job(active_state)
        assert (job.is_running, job.has_failed) == (is_running, has_failed)

    def test_fetch_under_way(self, systemctl: dict[str, str], tmp_path: Path) -> None:
        directory = tmp_path / "1.0.0"
        Path(f"{directory}.part").write_bytes(b"x" * 1234)
        Path(f"{directory}.total").write_text("5678\n")
        systemctl.update(ActiveState="active", Result="success")
        job = ask(FetchJob(), unit="fetch.service", directory=str(directory))
        assert job == Download("active", "success", 1234, 5678)

    @pytest.mark.parametrize("total", [None, "", "0\n"])
    def test_fetch_that_knows_no_size_yet(
        self, systemctl: dict[str, str], tmp_path: Path, total: str | None
    ) -> None:
        """The file appears empty before its number does."""
        directory = tmp_path / "1.0.0"
        if total is not None:
            Path(f"{directory}.total").write_text(total)
        systemctl.update(ActiveState="activating", Result="success")
        job = ask(FetchJob(), unit="fetch.service", directory=str(directory))
        assert job == Download("activating", "success", 0, 0)

    def test_no_answer_is_no_job(self) -> None:
        assert FetchJob().default() == Download()
        assert not Job().is_running
        assert not Job().has_failed
