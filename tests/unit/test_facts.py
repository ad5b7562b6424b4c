"""Facts: their shell lines run for real where this machine can, and their parsing."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactBase

from fleet.firewall.facts import Ruleset, RulesetState
from fleet.kit.facts.files import FileState, FileStates
from fleet.kit.facts.jobs import FetchJob, Job
from fleet.kit.facts.units import ABSENT, Unit, UnitState
from fleet.models.progress import ModelsJob, model_progress
from fleet.ollama.facts import OllamaModels, OllamaReleases


def ask(fact: FactBase[Any], **arguments: Any) -> Any:
    """Run the fact's command in sh and parse its output, as pyinfra does on a host."""
    command = fact.command(**arguments)
    assert not isinstance(command, str)
    output = subprocess.run(
        ["sh", "-c", command.get_raw_value()], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return fact.process(output) if output else fact.default()


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Properties of the only unit, which a `systemctl show` on PATH prints as the real one does."""
    tools = tmp_path / "tools"
    tools.mkdir()
    path = tools / "systemctl"
    path.write_text(
        "#!/usr/bin/python3\n"
        "import json, sys\n"
        f"properties = json.load(open({str(tools / 'properties')!r}))\n"
        "for flag, name in zip(sys.argv, sys.argv[1:]):\n"
        "    if flag == '-p':\n"
        "        value = properties.get(name, '')\n"
        "        print(value if '--value' in sys.argv else name + '=' + value)\n"
    )
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    class Saved(dict[str, str]):
        def update(self, *args: Any, **kwargs: Any) -> None:
            super().update(*args, **kwargs)
            (tools / "properties").write_text(json.dumps(self))

    properties = Saved()
    properties.update()
    return properties


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


class TestFileStates:
    def test_regular_files_only(self, tmp_path: Path) -> None:
        plain, spaced = tmp_path / "plain", tmp_path / "with 'spaces' and $x"
        plain.write_text("hello\n")
        plain.chmod(0o640)
        spaced.write_text("")
        spaced.chmod(0o755)
        link = tmp_path / "link"
        link.symlink_to(plain)
        asked = [str(path) for path in (plain, spaced, link, tmp_path, tmp_path / "missing")]
        user, group = plain.owner(), plain.group()
        assert ask(FileStates(), paths=asked) == {
            str(plain): FileState(
                "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
                "640",
                user,
                group,
            ),
            str(spaced): FileState(
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "755",
                user,
                group,
            ),
        }

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert ask(FileStates(), paths=[str(tmp_path / "missing")]) == {}

    def test_owners_of_a_real_host(self) -> None:
        line = f"{'a' * 64} 600 root www-data /etc/llm-fleet/keys.conf"
        assert FileStates().process([line]) == {
            "/etc/llm-fleet/keys.conf": FileState("a" * 64, "600", "root", "www-data")
        }


class TestRulesetState:
    """The real nft, in a network namespace of the test's own."""

    TABLE = "inet t"

    def state(self, path: Path, *before: str) -> Ruleset:
        """The fact in a namespace where the commands `before` have been run."""
        command = RulesetState().command(table=self.TABLE, path=str(path)).get_raw_value()
        script = "\n".join([*before, command])
        output = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        return RulesetState().process(output.splitlines())

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "a ruleset.nft"
        path.write_text(
            f"table {self.TABLE}\ndelete table {self.TABLE}\n"
            f"table {self.TABLE} {{ chain c {{ ip saddr 10.0.0.1 counter accept; }}; }}\n"
        )
        return path

    def test_loaded_equals_declared(self, path: Path) -> None:
        state = self.state(path, f"nft -f {shlex.quote(str(path))}")
        assert "10.0.0.1" in state.live
        assert state.live == state.declared

    def test_changed_by_hand(self, path: Path) -> None:
        state = self.state(
            path,
            f"nft -f {shlex.quote(str(path))}",
            f"nft add rule {self.TABLE} c tcp dport 11434 accept",
        )
        assert "11434" in state.live
        assert "11434" not in state.declared
        assert state.declared

    def test_not_loaded(self, path: Path) -> None:
        state = self.state(path)
        assert state.live == ""
        assert "10.0.0.1" in state.declared

    def test_looking_changes_nothing(self, path: Path) -> None:
        """What is declared is loaded elsewhere: asking twice finds the same live rules."""
        command = RulesetState().command(table=self.TABLE, path=str(path)).get_raw_value()
        assert self.state(path, f"({command}) >/dev/null").live == ""

    def test_neither_file_nor_table(self, tmp_path: Path) -> None:
        assert self.state(tmp_path / "missing") == Ruleset("", "")


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
        assert job == Job("active", "success", ("1234", "5678"))

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
        assert (job.active_state, len(job.report)) == ("activating", 2)
        assert [int(line or 0) for line in job.report] == [0, 0]

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

    def test_no_answer_is_no_job(self) -> None:
        assert FetchJob().default() == Job()
        assert not Job().is_running


class TestOllama:
    def test_models(self) -> None:
        answer = {"models": [{"name": "gpt-oss:20b", "size": 13}, {"name": "b:latest", "size": 1}]}
        models = OllamaModels().process(json.dumps(answer).splitlines())
        assert {name: model["size"] for name, model in models.items()} == {
            "gpt-oss:20b": 13,
            "b:latest": 1,
        }

    def test_no_models(self) -> None:
        assert OllamaModels().process(['{"models":[]}']) == {}

    def test_server_that_does_not_answer(self) -> None:
        """A host where Ollama is still to be installed has no models, and that is no error."""
        assert ask(OllamaModels(), url="http://127.0.0.1:9") == {}

    @pytest.mark.parametrize(
        ("lines", "releases"),
        [
            (["sha256=", "current="], {"sha256": "", "current": ""}),
            (
                [f"sha256={'a' * 64}", "current=/opt/ollama/0.32.7"],
                {"sha256": "a" * 64, "current": "/opt/ollama/0.32.7"},
            ),
        ],
    )
    def test_releases(self, lines: list[str], releases: dict[str, str]) -> None:
        assert OllamaReleases().process(lines) == releases

    def test_releases_of_a_bare_host(self) -> None:
        assert ask(OllamaReleases(), version="0.0.0-none")["sha256"] == ""
