"""What is asked of a unit: its shell lines run for real, and their parsing."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from fleet.kit.facts.units import ABSENT, Unit, UnitState
from tests.unit.facts import ask


class TestUnitState:
    # A running nginx, as the command prints it: master, two workers, two files, one of them gone.
    RUNNING = """\
LoadState=loaded
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no
ExecMainStartTimestampMonotonic=900000000
Ticks=100
Now=1000.50 1700000000.500000000
Started=90000
Worker=90010
Worker=95020
File=1699999980.250000000
File=
File=1699999900.000000000"""

    def test_running(self) -> None:
        assert UnitState().process(self.RUNNING.splitlines()) == Unit(
            load_state="loaded",
            active_state="active",
            file_state="enabled",
            needs_daemon_reload=False,
            started=900.0,
            worker_started=950.2,
            newest_file=pytest.approx(980.25),
        )

    def test_running_is_active_and_enabled(self) -> None:
        unit = UnitState().process(self.RUNNING.splitlines())
        assert (unit.is_active, unit.is_enabled) == (True, True)

    def test_unit_that_is_not_installed(self) -> None:
        lines = """\
LoadState=not-found
ActiveState=inactive
UnitFileState=
NeedDaemonReload=no
ExecMainStartTimestampMonotonic=0
Ticks=100
Now=1000.50 1700000000.500000000
File="""
        unit = UnitState().process(lines.splitlines())
        assert (unit.load_state, unit.is_active, unit.is_enabled) == ("not-found", False, False)
        assert (unit.started, unit.worker_started, unit.newest_file) == (0.0, 0.0, 0.0)

    def test_one_shot_unit_has_no_process_left(self) -> None:
        text = self.RUNNING.split("Started=")[0] + "File=1699999980.250000000"
        unit = UnitState().process(text.splitlines())
        assert unit.started == 900.0

    @pytest.mark.parametrize("state", ["disabled", "masked", "static", "enabled-runtime", ""])
    def test_only_enabled_starts_at_boot(self, state: str) -> None:
        text = self.RUNNING.replace("UnitFileState=enabled", f"UnitFileState={state}")
        assert not UnitState().process(text.splitlines()).is_enabled

    def test_changed_unit_file(self) -> None:
        text = self.RUNNING.replace("NeedDaemonReload=no", "NeedDaemonReload=yes")
        assert UnitState().process(text.splitlines()).needs_daemon_reload

    def test_no_answer_is_an_absent_unit(self) -> None:
        assert UnitState().default() == ABSENT

    def test_file_older_and_newer_than_a_real_process(
        self, systemctl: dict[str, str], tmp_path: Path
    ) -> None:
        """The clocks of a process and of a file are brought together, whatever was their order."""
        before, after, link = tmp_path / "it's old", tmp_path / "new", tmp_path / "link"
        before.touch()
        time.sleep(0.1)
        with subprocess.Popen(["sleep", "60"]) as process:
            try:
                time.sleep(0.1)
                after.touch()
                link.symlink_to(before)
                systemctl.update(LoadState="loaded", ActiveState="active", MainPID=str(process.pid))
                older = ask(UnitState(), unit="a.service", files=[str(before)])
                newer = ask(UnitState(), unit="a.service", files=[str(before), str(after)])
                switched = ask(UnitState(), unit="a.service", files=[str(link)])
            finally:
                process.kill()
        assert older.newest_file < older.started < newer.newest_file
        assert switched.newest_file > switched.started
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        assert uptime - older.started < 30

    def test_youngest_child_of_a_real_process(self, systemctl: dict[str, str]) -> None:
        script = "sleep 60 & sleep 0.2; sleep 60 & echo ready; wait"
        with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            try:
                systemctl.update(ActiveState="active", MainPID=str(process.pid))
                unit = ask(UnitState(), unit="a.service", files=[])
            finally:
                subprocess.run(["kill", str(process.pid), *children], check=True)
        assert unit.worker_started >= unit.started + 0.15
