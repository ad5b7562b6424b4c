"""Upgrades, returns, backups and restores of Dify's stack: what is left whenever one ends.

The program and its archives are real; Docker is `tests/unit/docker.py`, whose database is a text.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dify_client
import dify_stack
from tests.unit import docker

_RUN = subprocess.run
OLD, NEW, NEWER = "1.16.1", "1.17.1", "1.17.2"


class Killed(BaseException):
    """What a reboot is to a program."""


class Host:
    """A host with a Docker, on which Dify's program runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "dify"
        for version in (OLD, NEW, NEWER):
            self.offer(version)
        self.docker: dict[str, Any] = {
            "containers": {},
            "images": [],
            "calls": [],
            "database": "",
            "migrating": 0,
            "unwell": [],
        }
        (folder / "values").write_text("SECRET_KEY=x\n")
        (folder / "secrets.json").write_text("{}")
        client = {"memory": str(folder / "memory.json"), "keys": str(folder / "app-keys.json"),
                  "url": "http://127.0.0.1:9", "apps": []}  # fmt: skip
        (folder / "client.json").write_text(json.dumps(client))

    def offer(self, version: str) -> None:
        """Have a release unpacked."""
        place = self.folder / "opt" / version / "docker"
        place.mkdir(parents=True, exist_ok=True)
        (place / "docker-compose.yaml").write_text("services: {}\n")
        (place / ".env.example").write_text("SECRET_KEY=\n")

    def run(self, words: Any, **more: Any) -> Any:
        """What `subprocess.run` does, with this host's Docker."""
        rest = list(words)[list(words).index("docker") + 1 :] if "docker" in words else None
        if rest is None:
            return _RUN(words, **more)
        out, err, stdin = io.StringIO(), io.StringIO(), more.get("stdin")
        text = stdin.read().decode() if stdin else ""
        with (
            contextlib.chdir(more.get("cwd") or "/"),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = docker.main(self.docker, rest, text)
        if not more.get("text"):
            more["stdout"].write(out.getvalue().encode())
            return subprocess.CompletedProcess(words, status, None, err.getvalue().encode())
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    def tell(self, **state: Any) -> None:
        """Have Docker know something else."""
        self.docker |= state

    def config(self, version: str) -> dict[str, Any]:
        """What the program is told."""
        network = {"bridge": "br-dify", "subnet": "10.9.0.0/24", "ip_range": "10.9.0.0/25",
                   "daemon": "10.9.0.250"}  # fmt: skip
        return {
            "version": version, "project": "dify", "pristine": str(self.folder / "opt"),
            "root": str(self.root), "values": str(self.folder / "values"),
            "secrets": str(self.folder / "secrets.json"),
            "client": str(self.folder / "client.json"),
            "restore": str(self.root / "restore.tar"), "images": {}, "publish": {},
            "public_defaults": ["difyai123456"],
            "network": network, "proxy": None, "ca": None, "start_timeout": 5,
            "backup": {"dir": str(self.folder / "backups"), "keep": 9, "due": 3600},
        }  # fmt: skip

    def stack(self, version: str) -> Any:
        """The program, with `version` declared."""
        return dify_stack.Stack(self.config(version), "")

    def converge(self, version: str) -> None:
        """A deploy of `version`."""
        self.stack(version).converge()

    def work(self, text: str) -> None:
        """Leave something in the database and among the files."""
        self.tell(database=f"{self.docker['database']} {text}")
        (self.root / "volumes" / "files").write_text(self.docker["database"])

    @property
    def running(self) -> set[str]:
        """Versions whose containers run, all of them."""
        containers = self.docker["containers"].values()
        assert {item["State"]["Status"] for item in containers} == {"running"}
        return {item["Config"]["Image"].partition(":")[2] for item in containers}

    @property
    def files(self) -> str:
        """What is in the volumes."""
        return (self.root / "volumes" / "files").read_text()

    def do(self, *words: str) -> int:
        """Run the program as systemd does."""
        path = self.folder / "config.json"
        path.write_text(json.dumps(self.config(OLD)))
        status: int = dify_stack.main([words[0], str(path), *words[1:]])
        return status


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host on which the old release runs, with work in it."""
    monkeypatch.setattr(dify_stack.time, "sleep", lambda _: None)
    monkeypatch.setattr(dify_client.Dify, "wait_ready", lambda _: "finished")
    host = Host(tmp_path)
    monkeypatch.setattr(dify_stack.subprocess, "run", host.run)
    host.converge(OLD)
    host.work("work")
    return host


def killed_at(monkeypatch: pytest.MonkeyPatch, method: str, *, after: bool = False) -> None:
    """Kill the next run when it comes to `method`, once."""
    original: Callable[..., Any] = getattr(dify_stack.Stack, method)

    def kill(*words: Any, **more: Any) -> Any:
        monkeypatch.setattr(dify_stack.Stack, method, original)
        if after:
            original(*words, **more)
        raise Killed

    monkeypatch.setattr(dify_stack.Stack, method, kill)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception, *, versions: set[str]) -> None:
    """Have the proof of these versions fail."""

    def prove(stack: Any) -> None:
        running = {item["Config"]["Image"].partition(":")[2]
                   for item in stack.release.containers().values()}  # fmt: skip
        if running & versions:
            raise error

    monkeypatch.setattr(dify_stack.Stack, "_prove", prove)


def test_door_that_knows_the_addresses_before_a_restart(host: Host) -> None:
    containers = host.docker["containers"]
    containers["api"]["State"]["StartedAt"] = "2100-01-01T00:00:00Z"
    assert dify_stack.Stack._stale_door(containers) == "nginx: started before api"


def test_container_run_once_is_no_service(host: Host) -> None:
    # As `docker compose run api ...` leaves it.
    containers = host.docker["containers"]
    containers["run"] = containers["api"] | {"Id": "run", "State": {"Status": "exited"}}
    host.tell(containers=containers)
    assert host.stack(OLD).pending() == []


def test_old_crashes_are_no_reason_to_give_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # The container had a bad day once, and is well in a moment.
    containers = host.docker["containers"]
    containers["api"] |= {"RestartCount": 9, "State": {"Status": "restarting"}}
    well = containers | {"api": containers["api"] | {"State": {"Status": "running"}}}
    looks = iter([containers, containers, well])
    monkeypatch.setattr(dify_stack.Release, "containers", lambda _: next(looks))
    stack = host.stack(OLD)
    stack._wait_well(stack.release, {"api": {}})


def test_log_of_what_others_wait_for_in_vain(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compose says which container did not become well, and not a word of why."""
    host.tell(unwell=["db_postgres"])
    with pytest.raises(dify_stack.StackError, match="db_postgres is unhealthy"):
        host.converge(OLD)
    said = capsys.readouterr().out
    assert "the log of db_postgres" in said
    assert "the log of redis" not in said


class TestFirstInstallation:
    @pytest.fixture
    def bare(self, host: Host) -> Host:
        """A host on which nothing was ever installed."""
        shutil.rmtree(host.root)
        host.tell(containers={}, database="")
        return host

    @pytest.mark.parametrize("declared", [OLD, NEWER])
    @pytest.mark.parametrize("method", [None, "_down", "_keep"])
    def test_that_never_came_up_may_be_followed_by_any_version(
        self, bare: Host, monkeypatch: pytest.MonkeyPatch, declared: str, method: str | None
    ) -> None:
        bare.tell(unwell=["db_postgres"])
        with pytest.raises(dify_stack.StackError, match="db_postgres is unhealthy"):
            bare.converge(NEW)
        bare.tell(unwell=[])
        (bare.root / "volumes" / "files").write_text("half of it")
        if method:
            killed_at(monkeypatch, method)
            with pytest.raises(Killed):
                bare.converge(declared)
        bare.converge(declared)
        assert bare.running == {declared}
        (aside,) = bare.root.glob("volumes.before-*")
        assert (aside / "files").read_text() == "half of it"
        assert not (bare.root / "volumes" / "files").exists()
        assert bare.stack(declared).pending() == []
        bare.converge(NEWER)
        assert bare.running == {NEWER}

    def test_that_was_cut_off_at_its_very_end_is_not_given_up_later(
        self, bare: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All is well, and people will work with it."""
        killed_at(monkeypatch, "_wait_answer", after=True)
        with pytest.raises(Killed):
            bare.converge(OLD)
        assert bare.stack(OLD).pending() == ["the first installation was cut off"]
        bare.converge(OLD)
        assert bare.stack(OLD).pending() == []
        bare.work("work")
        bare.converge(NEW)
        assert "work" in bare.docker["database"]
        assert not list(bare.root.glob("volumes.before-*"))


class TestUpgrade:
    def test_goes_through(self, host: Host) -> None:
        host.converge(NEW)
        assert host.running == {NEW}
        assert host.docker["database"] == f" {OLD} work {NEW}"
        assert host.stack(NEW).pending() == []

    def test_proof_waits_for_the_migration(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # One container is at it; whoever else tries says "skipped", and that is no failure.
        monkeypatch.setattr(dify_stack.Stack, "_make_ready", lambda *_: None)
        monkeypatch.setattr(
            dify_client.Dify, "wait_ready", lambda _: left.append(host.docker["migrating"])
        )
        left: list[int] = []
        host.tell(migrating=3)
        host.converge(NEW)
        assert set(left) == {0}

    @pytest.mark.parametrize("what", ["folder", "image", "tag", "password", "proof"])
    def test_what_cannot_work_stops_nothing(
        self, host: Host, what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = NEW
        if what == "folder":
            shutil.rmtree(host.folder / "opt" / NEW)
        elif what == "image":
            target = "9.9.9"
            host.offer(target)
        elif what == "tag":
            monkeypatch.setattr(dify_stack, "image_problem", lambda _: "a tag that moves")
        elif what == "password":
            known = host.folder / "opt" / NEW / "docker" / ".env.example"
            known.write_text("SECRET_KEY=\nNEW_PASSWORD=difyai123456\n")
        else:
            failing(monkeypatch, dify_client.DifyError("no app"), versions={OLD})
        before = copy.deepcopy(host.docker["containers"])
        with pytest.raises(dify_stack.StackError):
            host.converge(target)
        assert host.docker["containers"] == before
        assert host.stack(OLD).pending() == []

    @pytest.mark.parametrize(
        "error", [dify_client.DifyError("no"), ValueError("no JSON"), KeyError("answer")]
    )
    def test_failed_one_is_taken_back(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        failing(monkeypatch, error, versions={NEW})
        with pytest.raises(dify_stack.StackError, match=r"was taken back, 1\.16\.1 runs"):
            host.converge(NEW)
        assert host.running == {OLD}
        assert host.docker["database"] == host.files == f" {OLD} work"
        assert host.stack(OLD).pending() == []

    def test_work_in_one_that_failed_is_put_aside(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its door was open until it had failed."""

        def prove(stack: Any) -> None:
            if host.running == {NEW}:
                host.work("more")
                raise dify_client.DifyError("no")

        monkeypatch.setattr(dify_stack.Stack, "_prove", prove)
        with pytest.raises(dify_stack.StackError) as caught:
            host.converge(NEW)
        (aside,) = host.root.glob("volumes.before-*")
        assert f"what {NEW} made of the data is in {aside}" in str(caught.value)
        assert (aside / "files").read_text() == f" {OLD} work {NEW} more"
        assert host.running == {OLD}
        assert host.files == f" {OLD} work"

    def test_that_could_fill_the_disk_stops_nothing(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A return has two of everything, for a while."""
        with (host.root / "volumes" / "big").open("wb") as file:
            file.truncate(600_000_000)
        usage = dify_stack.shutil.disk_usage("/")
        monkeypatch.setattr(
            dify_stack.shutil, "disk_usage", lambda _: usage._replace(free=1_100_000_000)
        )
        before = copy.deepcopy(host.docker["containers"])
        with pytest.raises(
            dify_stack.StackError, match=r"no upgrade to 1\.17\.1: it may take 1\.2"
        ):
            host.converge(NEW)
        assert host.docker["containers"] == before
        assert host.stack(OLD).pending() == []

    def test_working_copy_that_is_gone_is_no_obstacle_to_the_return(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that is full by then, say."""
        shutil.rmtree(host.folder / "opt" / NEW)
        monkeypatch.setattr(dify_stack.Stack, "_make_ready", lambda *_: None)
        with pytest.raises(dify_stack.StackError, match=r"no docker/docker-compose\.yaml"):
            host.converge(NEW)
        assert host.running == {OLD}
        assert host.docker["database"] == f" {OLD} work"

    def test_full_disk_at_the_backup_brings_the_old_one_back(self, host: Host) -> None:
        host.tell(full=True)
        with pytest.raises(dify_stack.StackError, match="No space left"):
            host.converge(NEW)
        assert host.running == {OLD}
        assert host.stack(OLD).pending() == []

    @pytest.mark.parametrize(
        ("method", "after", "declared"),
        [
            ("backup", False, OLD),
            ("backup", True, NEW),
            ("_down", False, NEWER),
            ("_down", True, OLD),
            ("_down", True, NEW),
            ("_wait_well", False, OLD),
            ("_wait_well", True, NEW),
            ("_wait_well", True, NEWER),
        ],
    )
    def test_killed_one_converges(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, method: str, declared: str, after: bool
    ) -> None:
        """Wherever it was cut off, and whatever is declared then; what was there is still there."""
        killed_at(monkeypatch, method, after=after)
        with pytest.raises(Killed):
            host.converge(NEW)
        host.converge(declared)
        assert host.running == {declared}
        assert f" {OLD} work" in host.docker["database"]
        assert host.files == f" {OLD} work"
        assert host.stack(declared).pending() == []

    @pytest.mark.parametrize("declared", [OLD, NEW])
    def test_work_after_a_cut_is_not_replaced_by_an_older_backup(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, declared: str
    ) -> None:
        """The host came back by itself, and people went on."""
        killed_at(monkeypatch, "backup", after=True)
        with pytest.raises(Killed):
            host.converge(NEW)
        host.work("more")
        failing(monkeypatch, dify_client.DifyError("no"), versions={NEW})
        if declared == NEW:
            with pytest.raises(dify_stack.StackError):
                host.converge(NEW)
        else:
            host.converge(OLD)
        assert host.running == {OLD}
        assert host.docker["database"] == host.files == f" {OLD} work more"

    def test_work_in_the_new_one_is_put_aside_by_a_return(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed_at(monkeypatch, "_wait_answer", after=True)
        with pytest.raises(Killed):
            host.converge(NEW)
        host.work("more")
        killed_at(monkeypatch, "_start_database")
        with pytest.raises(Killed):
            host.converge(OLD)
        host.converge(NEW)
        (aside,) = host.root.glob("volumes.before-*")
        assert (aside / "files").read_text() == f" {OLD} work {NEW} more"
        assert host.running == {NEW}
        assert host.files == f" {OLD} work"

    def test_return_that_was_cut_off_is_finished_first(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it left on the disk is of neither release."""
        failing(monkeypatch, dify_client.DifyError("no"), versions={NEW})
        killed_at(monkeypatch, "_replace_volumes")
        with pytest.raises(Killed):
            host.converge(NEW)
        host.tell(database="half of it")
        host.converge(OLD)
        assert host.running == {OLD}
        assert host.docker["database"] == f" {OLD} work"


class TestAfterABoot:
    """Docker has started what it could, in no order."""

    @pytest.fixture
    def answering(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dify_client.Dify, "setup_state", lambda _: "finished")

    @pytest.mark.usefixtures("answering")
    def test_old_addresses_are_forgotten(self, host: Host) -> None:
        host.docker["containers"]["api"]["State"]["StartedAt"] = docker.now()
        before = copy.deepcopy(host.docker["containers"])
        # Until it is probed for the first time, half a minute from now.
        host.docker["containers"]["api"]["State"]["Health"] = {"Status": "starting"}
        host.stack(OLD).settle()
        assert dify_stack.Stack._stale_door(host.docker["containers"]) is None
        host.tell(containers=copy.deepcopy(before))
        assert host.stack(OLD).pending() == ["nginx: started before api"]
        assert host.do("settle") == 0
        assert host.stack(OLD).pending() == []
        for name in ("api", "redis", "db_postgres"):
            assert host.docker["containers"][name] == before[name]
        assert host.docker["containers"]["nginx"]["Id"] == before["nginx"]["Id"]

    @pytest.mark.usefixtures("answering")
    def test_well_one_is_left_alone(self, host: Host) -> None:
        before = copy.deepcopy(host.docker["containers"])
        assert host.do("settle") == 0
        assert host.docker["containers"] == before

    def test_collaboration_is_looked_up_at_each_request(self, host: Host) -> None:
        containers = host.docker["containers"]
        containers["api_websocket"] = containers["api"] | {
            "State": {"Status": "running", "StartedAt": docker.now()}
        }
        assert dify_stack.Stack._stale_door(containers) is None

    @pytest.mark.usefixtures("answering")
    def test_address_that_comes_late(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        host.docker["containers"]["nginx"]["State"]["Status"] = "exited"
        host.tell(address_missing=True)
        waits = []

        def comes(seconds: float) -> None:
            waits.append(seconds)
            with dify_stack.locked(host.root, wait=False) as mine:
                assert mine, "a deploy would wait"
            host.tell(address_missing=len(waits) < 3)

        monkeypatch.setattr(dify_stack.time, "sleep", comes)
        assert host.do("settle") == 0
        assert host.running == {OLD}
        assert len(waits) == 4

    def test_answer_is_waited_for(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        states = iter([None, None, "finished"])
        monkeypatch.setattr(dify_client.Dify, "setup_state", lambda _: next(states))
        assert host.do("settle") == 0
        assert next(states, "all asked") == "all asked"

    def test_unwell_one_is_a_failure_and_tried_again_by_systemd(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        now = iter(range(0, 1000, 3))
        monkeypatch.setattr(dify_stack.time, "monotonic", lambda: float(next(now)))
        host.docker["containers"]["api"]["State"]["Status"] = "restarting"
        assert host.do("settle") == 1
        assert "api: restarting" in capsys.readouterr().err

    def test_what_was_cut_off_and_what_is_declared_is_a_deploys(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed_at(monkeypatch, "_down")
        with pytest.raises(Killed):
            host.converge(NEW)
        before = copy.deepcopy(host.docker)
        assert host.do("settle") == 0
        assert host.docker["containers"] == before["containers"]


class TestRestore:
    def test_each_puts_aside_what_was_there(self, host: Host) -> None:
        archive = host.stack(OLD).backup()
        for number in (1, 2):
            host.work(f"more{number}")
            shutil.copyfile(archive, host.root / "restore.tar")
            os.utime(host.root / "restore.tar", (number, number))
            host.converge(OLD)
            assert host.files == host.docker["database"] == f" {OLD} work"
            aside = host.root / f"volumes.before-{number}" / "files"
            assert aside.read_text() == f" {OLD} work more{number}"

    @pytest.mark.parametrize("method", ["_replace_volumes", "_start_database", "_import"])
    def test_killed_one_on_a_bare_host_pulls_nothing_from_under_a_database(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        shutil.copyfile(host.stack(OLD).backup(), host.folder / "restore.tar")
        shutil.rmtree(host.root)
        host.tell(containers={}, database="")
        host.root.mkdir()
        shutil.copyfile(host.folder / "restore.tar", host.root / "restore.tar")
        killed_at(monkeypatch, method, after=True)
        with pytest.raises(Killed):
            host.converge(OLD)
        replace, there = dify_stack.Stack._replace_volumes, []

        def look(*words: Any) -> None:
            there.append(dict(host.docker["containers"]))
            replace(*words)

        monkeypatch.setattr(dify_stack.Stack, "_replace_volumes", look)
        host.converge(OLD)
        assert there == [{}]
        assert host.files == host.docker["database"] == f" {OLD} work"
        assert host.stack(OLD).pending() == []


class TestBackup:
    @pytest.mark.parametrize(
        "state",
        [{}, {"version": OLD, "installing": True}, {"version": OLD, "under_way": "an upgrade"}],
    )
    def test_of_no_version_or_of_two_is_refused(
        self, host: Host, state: dict[str, Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        (host.root / "state.json").write_text(json.dumps(state))
        assert host.do("backup") == 1
        assert "Dify: no backup now" in capsys.readouterr().err
        assert not list(host.folder.glob("backups/*"))

    def test_that_could_fill_the_disk_pauses_nothing(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (host.root / "volumes" / "db" / "data").mkdir(parents=True)
        sizes = {"app": 600_000_000, "db/data/base": 100_000_000}
        for name, size in sizes.items():
            with (host.root / "volumes" / name).open("wb") as file:
                file.truncate(size)
        usage = dify_stack.shutil.disk_usage("/")
        monkeypatch.setattr(
            dify_stack.shutil, "disk_usage", lambda _: usage._replace(free=1_200_000_000)
        )
        host.docker["calls"].clear()
        assert host.do("backup") == 1
        assert "it may take 1.3 GB" in capsys.readouterr().err
        assert not [call for call in host.docker["calls"] if "pause" in call]
        monkeypatch.setattr(
            dify_stack.shutil, "disk_usage", lambda _: usage._replace(free=1_400_000_000)
        )
        monkeypatch.setattr(dify_stack, "_tar", lambda target, *_: target.touch())
        assert host.do("backup") == 0

    def test_is_roots_alone_while_it_is_written(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The directory may be one that others read."""
        (host.folder / "backups").mkdir(mode=0o755)
        modes: set[str] = set()
        monkeypatch.setattr(dify_stack, "sync", lambda part: modes.add(oct(part.stat().st_mode)))
        run = dify_stack.run

        def watch(*words: str, **more: Any) -> str:
            said: str = run(*words, **more)
            parts = host.folder.glob("backups/.part-*")
            modes.update(oct(part.stat().st_mode & 0o77) for part in parts)
            return said

        monkeypatch.setattr(dify_stack, "run", watch)
        archive = host.stack(OLD).backup()
        assert modes == {"0o0", "0o100600"}
        assert oct(archive.stat().st_mode) == "0o100600"

    def test_leaves_nothing_of_a_killed_one(self, host: Host) -> None:
        """A whole archive, with every secret in it."""
        (host.folder / "backups" / ".part-a").mkdir(parents=True)
        (host.folder / "backups" / ".part-b.tar").write_text("secrets")
        assert host.do("backup") == 0
        names = sorted(path.name for path in host.folder.glob("backups/*"))
        assert [Path(name).suffix for name in names] == [".tar", ".sha256"]

    @pytest.mark.parametrize("stopped", [["redis"], ["api", "nginx", "redis"]])
    def test_of_an_unwell_stack(self, host: Host, stopped: list[str]) -> None:
        containers = host.docker["containers"]
        for name in stopped:
            containers[name]["State"]["Status"] = "exited"
        host.tell(containers=containers)
        assert host.do("backup") == 0

    def test_compresses_when_nobody_waits_for_it(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, running = dify_stack.run, []

        def watch(*words: str, **more: Any) -> str:
            if words[0] == "gzip" or "--gzip" in words:
                running.append(host.running)
            said: str = run(*words, **more)
            return said

        monkeypatch.setattr(dify_stack, "run", watch)
        host.stack(OLD).backup()
        assert running == [{OLD}]

    def test_unpause_lets_a_backup_that_runs_be(self, host: Host) -> None:
        """It freezes for a reason, and a deploy's end must not wait for it either."""
        run = dify_stack.run
        ids = [item["Id"] for item in host.docker["containers"].values()]
        run("docker", "pause", *ids)
        with dify_stack.locked(host.root):
            assert host.do("unpause") == 0
            assert all(
                item["State"]["Status"] == "paused" for item in host.docker["containers"].values()
            )
        assert host.do("unpause") == 0
        assert host.running == {OLD}

    def test_check_waits_until_it_lets_go(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A verify, or a deploy, may come at any time."""
        dump, waits = dify_stack._dump, []

        class LetGoError(Exception):
            """In the place of a pause that ends."""

        def let_go(_: float) -> None:
            waits.append(dify_client.is_frozen(host.root))
            raise LetGoError

        def check_and_dump(*words: Any) -> None:
            monkeypatch.setattr(dify_client.time, "sleep", let_go)
            with pytest.raises(LetGoError):
                host.do("check")
            monkeypatch.setattr(dify_client.time, "sleep", lambda _: None)
            dump(*words)

        monkeypatch.setattr(dify_stack, "_dump", check_and_dump)
        assert host.do("backup") == 0
        assert waits == [True]
        assert "pending" not in capsys.readouterr().out
        assert host.do("check") == 0
        assert '{"pending": []}' in capsys.readouterr().out

    def test_pause_that_a_killed_one_left_is_seen(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def kill(*_: Any) -> None:
            monkeypatch.setattr(dify_stack.Stack, "unpause", lambda _: None)
            raise Killed

        monkeypatch.setattr(dify_stack, "_dump", kill)
        with pytest.raises(Killed):
            host.do("backup")
        assert (host.root / ".frozen").exists()
        host.do("check")
        assert "api: paused" in capsys.readouterr().out

    def test_and_the_set_up_wait_for_each_other(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It would ask a Dify that is paused, and be half done in the archive."""
        held = []

        def apply(_: Any) -> None:
            with dify_stack.locked(host.root, wait=False) as mine:
                held.append(not mine)

        monkeypatch.setattr(dify_client, "apply", apply)
        assert host.do("setup") == 0
        assert held == [True]

    def test_dump_does_not_wait_for_ever_for_a_lock(self, host: Host) -> None:
        """... that one of the paused may hold."""
        host.stack(OLD).backup()
        (dump,) = (call for call in host.docker["calls"] if "pg_dump" in call)
        assert "--lock-wait-timeout=60000 -d" in dump


def test_lock_out_is_not_taken_for_a_wrong_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try is not counted while Dify is locked, and the lock ends after a day."""
    config = {
        "url": "http://127.0.0.1:9", "memory": str(tmp_path / "memory.json"),
        "keys": str(tmp_path / "keys.json"), "password_name": "x", "reset_command": "y",
        "owner": {"email": "a@b.example", "password": "right-1"}, "retry_timeout": 1,
    }  # fmt: skip
    locked = dify_client.Answer(429, b'{"message": "Too many incorrect password attempts."}', [])
    monkeypatch.setattr(dify_client.Connection, "request", lambda *_, **__: locked)
    with pytest.raises(dify_client.DifyError, match="locked for a day"):
        dify_client.Dify(config).login()
    free = dify_client.Answer(200, b'{"result": "success"}', [])
    monkeypatch.setattr(dify_client.Connection, "request", lambda *_, **__: free)
    dify_client.Dify(config).login()


@pytest.mark.parametrize("lost", [None, dify_client.Answer(504, b"", [])])
@pytest.mark.parametrize("path", ["/console/api/apps/imports", "/console/api/apps/x/api-keys"])
def test_what_makes_something_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, lost: Any
) -> None:
    # The answer was lost, not the request.
    config = {"url": "http://127.0.0.1:9", "memory": str(tmp_path / "m"),
              "keys": str(tmp_path / "k"), "retry_timeout": 1}  # fmt: skip
    asked = []

    def request(_: Any, method: str, path: str, *__: Any, **___: Any) -> Any:
        asked.append((method, path))
        if lost is None:
            raise TimeoutError("timed out")
        return lost

    monkeypatch.setattr(dify_client.time, "sleep", lambda _: None)
    monkeypatch.setattr(dify_client.Connection, "request", request)
    with pytest.raises(dify_client.DifyError):
        dify_client.Dify(config).call("POST", path, {})
    assert len(asked) == 1
    with pytest.raises(dify_client.DifyError):
        dify_client.Dify(config).call("GET", path)
    assert len(asked) > 2


NO_NODE = "[Ollama] Error: req_id: x PluginDaemonInternalServerError: no available node, plugin "
NO_NODE += "runtime not found"
NO_DAEMON = "Failed to request plugin daemon, url: plugin/t/dispatch/llm/invoke"


class Talk:
    """A Dify whose plugin comes up late: what it answers, in order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        self.asked: list[str] = []
        self.answers = answers
        config = {"url": "http://127.0.0.1:9", "memory": str(folder / "m"), "stream_timeout": 9,
                  "keys": str(folder / "k"), "retry_timeout": 60}  # fmt: skip
        self.client = dify_client.Dify(config)
        self.client.keys.keep("chat", "app-x")
        self.now = 0.0
        monkeypatch.setattr(dify_client.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(dify_client.time, "sleep", self.sleep)
        monkeypatch.setattr(dify_client.Connection, "request", self.whole)
        monkeypatch.setattr(dify_client.Connection, "events", self.streamed)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def whole(self, *_: Any) -> Any:
        self.asked.append("whole")
        status, body = self._next("whole", (200, {"answer": "Paris"}))
        return dify_client.Answer(status, json.dumps(body).encode(), [])

    def streamed(self, *_: Any) -> Any:
        self.asked.append("streamed")
        said = [{"event": "message", "answer": "Paris"}, {"event": "message_end"}]
        return iter(self._next("streamed", said))

    def _next(self, kind: str, last: Any) -> Any:
        left = self.answers.get(kind, [])
        return (left.pop(0) if len(left) > 1 else left[0]) if left else last

    def __call__(self) -> Any:
        return self.client.chat({"role": "chat", "name": "Fleet chat"})


@pytest.mark.parametrize(
    "answer",
    [(400, {"message": NO_NODE}), (400, {"message": NO_DAEMON}), (502, {}), (503, {}), (504, {})],
)
def test_chat_waits_for_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """A good upgrade would be taken back otherwise."""
    good = (200, {"answer": "Paris"})
    talk = Talk(tmp_path, monkeypatch, whole=[answer, answer, good])
    assert talk() == ("Paris", "Paris")
    assert talk.asked == ["whole"] * 3 + ["streamed"]
    with pytest.raises(dify_client.DifyError):
        Talk(tmp_path, monkeypatch, whole=[answer])()


@pytest.mark.parametrize("message", [NO_NODE, NO_DAEMON])
def test_streamed_chat_waits_for_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    """Its error is inside of a 200; after a part of an answer it is another one's."""
    error = {"event": "error", "code": "completion_request_error", "message": message}
    part = {"event": "message", "answer": "Pa"}
    good = [{"event": "message", "answer": "Paris"}, {"event": "message_end"}]
    talk = Talk(tmp_path, monkeypatch, streamed=[[error], [error], good])
    assert talk() == ("Paris", "Paris")
    assert talk.asked == ["whole"] + ["streamed"] * 3
    talk = Talk(tmp_path, monkeypatch, streamed=[[part, error], good])
    with pytest.raises(dify_client.DifyError, match="streamed"):
        talk()


def test_chat_that_is_refused_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Talk(tmp_path, monkeypatch, whole=[(400, {"message": "Server Unavailable Error"})])
    with pytest.raises(dify_client.DifyError, match="Server Unavailable"):
        talk()
    assert talk.asked == ["whole"]


class Console:
    """Dify's console with a plugin installed, of which no other version can be installed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, plugin: Any) -> None:
        self.there, self.asked = {"old": "1"}, []
        config = {"url": "http://127.0.0.1:9", "memory": str(folder / "m"), "plugin": plugin,
                  "keys": str(folder / "k"), "retry_timeout": 1, "plugin_timeout": 1}  # fmt: skip
        self.client = dify_client.Dify(config)
        monkeypatch.setattr(dify_client.Dify, "_upload", lambda _: "new")
        monkeypatch.setattr(dify_client.Dify, "call", self.call)

    def call(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        name = path.removeprefix(dify_client.WORKSPACE).removeprefix("/plugin/")
        self.asked += [name] if method == "POST" and not name.startswith("list") else []
        answer: dict[str, Any] = {"plugins": [
            {"plugin_unique_identifier": key, "id": value} for key, value in self.there.items()
        ]}  # fmt: skip
        if name == "uninstall":
            self.there.clear()
        elif name.startswith(("install/", "upgrade/")):
            answer = {"all_installed": False, "task_id": json.dumps(body)}
        elif name.startswith("tasks/"):
            lost = "new" in name
            if not lost:
                self.there["old"] = "2"
            answer = {"task": {"status": "failed" if lost else "success", "plugins": []}}
        return dify_client.Answer(200, json.dumps(answer).encode(), [])


@pytest.mark.parametrize(
    ("plugin", "asked"),
    [
        ({"identifier": "new"}, ["upgrade/marketplace"]),
        ({"package": "p", "sha256": "x"}, ["uninstall", "install/pkg", "install/pkg"]),
    ],
)
def test_plugin_that_cannot_be_installed_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Any, asked: list[str]
) -> None:
    """Its dependencies cannot be had, say; every chat would fail meanwhile."""
    console = Console(tmp_path, monkeypatch, plugin)
    with pytest.raises(dify_client.DifyError, match="the plugin was not installed"):
        console.client.do_plugin()
    assert list(console.there) == ["old"]
    assert console.asked == asked


def test_new_ca_makes_the_daemon_anew(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its file is replaced, and the mount of a container that runs keeps the old one.
    release = dify_stack.Release(host.config(OLD) | {"ca": "/etc/x.pem"}, OLD)
    seen = []
    for text in ("one CA", "another CA"):
        monkeypatch.setattr(dify_stack.Release, "_bundle_text", lambda _, text=text: text)
        ours = release._service_override("plugin_daemon", {"plugin_daemon": {"image": "x"}})
        seen.append(ours["environment"])
    assert seen[0] != seen[1]
