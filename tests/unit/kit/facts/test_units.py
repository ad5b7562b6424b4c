"""What is asked of a unit, with real processes and files: does it run what is on the disk?"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import StringCommand

from fleet.kit import units
from fleet.kit.facts import units as facts
from fleet.kit.facts.units import ABSENT, Unit, UnitState
from tests.unit.facts import ask

_UNIT = "a.service"


class Service:
    """A unit with a real process, started and noted by the commands that `run_unit` yields."""

    def __init__(self, systemctl: dict[str, str], files: list[Path]) -> None:
        self.systemctl, self.files, self.starts = systemctl, files, 0
        self.process: subprocess.Popen[bytes] | None = None
        systemctl.update(
            LoadState="loaded", ActiveState="active", UnitFileState="enabled", NeedDaemonReload="no"
        )

    def start(self) -> None:
        """Start it anew, as a crash or a reboot does."""
        self.stop()
        self.starts += 1
        self.process = subprocess.Popen(
            ["sh", "-c", "trap 'sleep 900 & echo' USR1; sleep 900 & echo; while :; do wait; done"],
            stdout=subprocess.PIPE,
        )
        self._until_it_says()
        self.systemctl.update(MainPID=str(self.process.pid), InvocationID=str(self.starts))

    def reload(self) -> None:
        """Have a younger child."""
        assert self.process
        assert self.process.stdout
        time.sleep(0.05)
        # Not HUP: a shell cannot trap what nohup ignores. One about to wait may miss a signal.
        self.process.send_signal(signal.SIGUSR1)
        while not select.select([self.process.stdout], [], [], 5)[0]:
            self.process.send_signal(signal.SIGUSR1)
        self._until_it_says()

    def _until_it_says(self) -> None:
        assert self.process
        assert self.process.stdout
        self.process.stdout.readline()

    def stop(self) -> None:
        """End it, and its children."""
        if self.process:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            subprocess.run(["kill", "-9", str(self.process.pid), *children.read_text().split()],
                           check=True)  # fmt: skip
            self.process.communicate()

    def deploy(self, restart: Any = None, *, reloaded: bool = False) -> None:
        """What a deploy does that starts the unit, or only writes its note."""
        paths = [str(path) for path in self.files]
        _shell(units._note(_UNIT, paths, reloaded=reloaded))
        if restart:
            restart()
        _shell(units._keep_note(_UNIT, reloaded=reloaded))

    def ask(self, *, reloaded: bool = False) -> Unit:
        """What the next deploy sees."""
        paths = [str(path) for path in self.files]
        unit: Unit = ask(UnitState(), unit=_UNIT, files=paths, reloaded=reloaded)
        return unit


def _shell(command: StringCommand) -> None:
    subprocess.run(["sh", "-c", command.get_raw_value()], check=True)


def _write(path: Path, text: str) -> None:
    """As `install_files` does: a new file in the old one's place."""
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").rename(path)


@pytest.fixture
def service(
    systemctl: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    """A service with two files, which a deploy has started."""
    for module in (units, facts):
        monkeypatch.setattr(module, "STARTED", str(tmp_path / "started"))
    files = [tmp_path / "it's a file", tmp_path / "other"]
    for path in files:
        path.write_text("old")
    service = Service(systemctl, files)
    service.deploy(service.start)
    yield service
    service.stop()


class TestNote:
    def test_started_as_it_is(self, service: Service) -> None:
        assert service.ask() == Unit("loaded", "active", "enabled", False, False, True)

    def test_changed_since(self, service: Service) -> None:
        _write(service.files[0], "new")
        assert service.ask().is_outdated
        service.deploy(service.start)
        assert not service.ask().is_outdated

    @pytest.mark.parametrize("moment", [0, 4_000_000_000], ids=["of long ago", "of the future"])
    def test_no_clock_decides(self, service: Service, moment: int) -> None:
        """Set forth or back between a start and a change, or for good."""
        os.utime(service.files[0], (moment, moment))
        assert not service.ask().is_outdated
        _write(service.files[0], "new")
        os.utime(service.files[0], (moment, moment))
        assert service.ask().is_outdated
        service.deploy(service.start)
        assert not service.ask().is_outdated

    def test_crash_or_reboot_after_which_it_reads_the_same(self, service: Service) -> None:
        service.start()
        assert not service.ask().is_outdated

    def test_nobody_knows_what_somebody_elses_start_has_read(self, service: Service) -> None:
        """Changed, started by a reboot before the deploy came to it, and changed back."""
        _write(service.files[0], "new")
        service.start()
        assert service.ask().is_outdated
        _write(service.files[0], "old")
        assert service.ask().is_outdated

    def test_changed_and_changed_back_under_the_same_process(self, service: Service) -> None:
        _write(service.files[0], "new")
        _write(service.files[0], "old")
        assert not service.ask().is_outdated

    def test_file_that_comes_and_goes(self, service: Service) -> None:
        service.files[1].unlink()
        assert service.ask().is_outdated
        service.deploy(service.start)
        assert not service.ask().is_outdated
        service.files[1].write_text("")
        assert service.ask().is_outdated

    def test_link_that_is_switched(self, service: Service) -> None:
        link = service.files[1].with_name("link")
        link.symlink_to(service.files[0])
        service.files.append(link)
        service.deploy(service.start)
        assert not service.ask().is_outdated
        link.unlink()
        link.symlink_to(service.files[1])
        assert service.ask().is_outdated

    def test_what_is_no_file_is_not_read(self, service: Service) -> None:
        service.files[1].unlink()
        os.mkfifo(service.files[1])
        assert service.ask().is_outdated
        service.files[1].unlink()
        service.files[1].mkdir()
        assert service.ask().is_outdated

    def test_failed_start_is_not_noted(self, service: Service) -> None:
        _write(service.files[0], "new")
        _shell(units._note(_UNIT, [str(path) for path in service.files], reloaded=False))
        service.start()
        assert service.ask().is_outdated


class TestReload:
    def test_changed_since_the_reload(self, service: Service) -> None:
        service.deploy(reloaded=True)
        assert not service.ask(reloaded=True).is_outdated
        _write(service.files[0], "new")
        assert service.ask(reloaded=True).is_outdated
        service.deploy(service.reload, reloaded=True)
        assert not service.ask(reloaded=True).is_outdated

    def test_somebody_elses_reload_of_what_was_changed_back(self, service: Service) -> None:
        service.deploy(reloaded=True)
        _write(service.files[0], "new")
        service.reload()
        _write(service.files[0], "old")
        assert service.ask(reloaded=True).is_outdated


class TestWithoutANote:
    """As an older version of this project, or a package, has started the unit."""

    @pytest.fixture(autouse=True)
    def _no_note(self, service: Service, tmp_path: Path) -> None:
        (tmp_path / "started" / _UNIT).unlink()

    def test_started_after_its_files(self, service: Service) -> None:
        """An upgrade of this project restarts nothing that runs as declared."""
        assert (service.ask().is_outdated, service.ask().is_noted) == (False, False)
        service.deploy()
        assert (service.ask().is_outdated, service.ask().is_noted) == (False, True)

    def test_changed_since(self, service: Service) -> None:
        time.sleep(1)
        _write(service.files[0], "new")
        assert service.ask().is_outdated

    def test_file_that_an_older_note_does_not_know(self, service: Service) -> None:
        service.deploy()
        service.files.append(service.files[0].with_name("third"))
        time.sleep(1)
        service.files[-1].touch()
        assert (service.ask().is_outdated, service.ask().is_noted) == (True, False)

    def test_one_shot_unit_has_no_process_left(self, service: Service) -> None:
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        moment = str(round((uptime + 1) * 1e6))
        service.systemctl.update(MainPID="0", ExecMainStartTimestampMonotonic=moment)
        assert not service.ask().is_outdated
        service.systemctl.update(ExecMainStartTimestampMonotonic="1")
        assert service.ask().is_outdated


def test_the_file_that_runs_needs_no_note(service: Service, tmp_path: Path) -> None:
    """A package's upgrade that has restarted its unit asks for no other restart."""
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    service.files = [program]
    service.deploy()
    with subprocess.Popen([program, "60"]) as process:
        service.systemctl.update(MainPID=str(process.pid), InvocationID="other")
        assert not service.ask().is_outdated
        program.unlink()
        program.write_bytes(Path("/bin/cat").read_bytes())
        assert service.ask().is_outdated
        process.kill()


@pytest.mark.parametrize(
    ("properties", "enabled", "read"),
    [
        ({}, True, True),
        ({"UnitFileState": "enabled-runtime"}, False, True),
        ({"UnitFileState": ""}, False, True),
        ({"NeedDaemonReload": "yes"}, True, False),
        *[({"LoadState": state}, True, False)
          for state in ("not-found", "bad-setting", "error", "masked", "stub", "merged")],
    ],
)  # fmt: skip
def test_systemds_words(
    service: Service, properties: dict[str, str], enabled: bool, read: bool
) -> None:
    service.systemctl.update(**properties)
    assert (service.ask().is_enabled, service.ask().is_read) == (enabled, read)


def test_transient_unit_is_told_from_the_file_below_it(service: Service) -> None:
    assert not service.ask().is_transient
    service.systemctl.update(Transient="yes", UnitFileState="enabled")
    assert service.ask().is_transient


def test_no_answer_is_an_absent_unit() -> None:
    assert UnitState().default() == ABSENT
