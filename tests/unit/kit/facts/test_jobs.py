"""What is asked of a job that a host does in the background."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet.kit.facts import jobs
from fleet.kit.facts.jobs import Download, FailedJobs, FetchJob, Job
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

    @pytest.fixture
    def total(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Where a job that fetches says how much there is."""
        monkeypatch.setattr(jobs, "_RUN", str(tmp_path / "run"))
        path = tmp_path / "run" / "fetch" / "total"
        path.parent.mkdir(parents=True)
        return path

    def test_fetch_under_way(self, systemctl: dict[str, str], tmp_path: Path, total: Path) -> None:
        directory = tmp_path / "1.0.0"
        Path(f"{directory}.part").write_bytes(b"x" * 1234)
        total.write_text("5678\n")
        systemctl.update(ActiveState="active", Result="success")
        job = ask(FetchJob(), unit="fetch.service", directory=str(directory))
        assert job == Download("active", "success", 1234, 5678)

    @pytest.mark.parametrize("text", [None, "", "0\n", "1e+20", "-5", "9" * 30, "<html>"])
    def test_fetch_that_knows_no_size(
        self, systemctl: dict[str, str], tmp_path: Path, total: Path, text: str | None
    ) -> None:
        """The file appears empty before its number does."""
        directory = tmp_path / "1.0.0"
        if text is not None:
            total.write_text(text)
        systemctl.update(ActiveState="activating", Result="success")
        job = ask(FetchJob(), unit="fetch.service", directory=str(directory))
        assert job == Download("activating", "success", 0, 0)

    def test_no_answer_is_no_job(self) -> None:
        assert FetchJob().default() == Download()
        assert not Job().is_running
        assert not Job().has_failed

    def test_failed_ones_that_are_jobs(
        self, systemctl: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A unit with a file of its own has failed for whoever looks after it."""
        real = tmp_path / "tools" / "systemctl"
        (tmp_path / "systemctl").write_text(
            f"""#!/bin/sh
            case "$*" in
            list-units*) printf 'llm-fleet-a.service loaded failed failed a\\n'
                printf 'llm-fleet-b.service loaded failed failed b\\n';;
            *a.service) echo yes;;
            *) exec {real} "$@";;
            esac"""
        )
        (tmp_path / "systemctl").chmod(0o755)
        systemctl.update(Transient="no")
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert ask(FailedJobs()) == ["llm-fleet-a.service"]
