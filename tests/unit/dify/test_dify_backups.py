"""Backups and restores: what is in one, who waits, and what a killed one leaves."""

from __future__ import annotations

import copy
import json
import os
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

import archives
import common
import dify_backups
import dify_client
import dify_volumes
from common import ProgramError
from dify_backups import Backups
from dify_containers import Containers
from dify_freeze import is_frozen, locked
from tests.unit.dify.dify_host import NEW, OLD, Host, Killed, killed_at


class TestRestore:
    def test_each_puts_aside_what_was_there(self, host: Host) -> None:
        archive = host.stack(OLD).backups.make()
        for number in (1, 2):
            host.work(f"more{number}")
            shutil.copyfile(archive, host.root / "restore.tar")
            os.utime(host.root / "restore.tar", (number, number))
            host.converge(OLD)
            assert host.files == host.docker["database"] == f" {OLD} work"
            aside = host.root / f"volumes.before-{number}" / "files"
            assert aside.read_text() == f" {OLD} work more{number}"

    @pytest.mark.parametrize(
        "method",
        [
            (dify_backups, "replace_volumes"),
            (Containers, "start_database"),
            (Backups, "put_back"),
        ],
    )
    def test_killed_one_on_a_bare_host_pulls_nothing_from_under_a_database(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, method: Any
    ) -> None:
        shutil.copyfile(host.stack(OLD).backups.make(), host.folder / "restore.tar")
        shutil.rmtree(host.root)
        host.tell(containers={}, database="")
        host.root.mkdir()
        shutil.copyfile(host.folder / "restore.tar", host.root / "restore.tar")
        killed_at(monkeypatch, *method, after=True)
        with pytest.raises(Killed):
            host.converge(OLD)
        replace, there = dify_backups.replace_volumes, []

        def look(*words: Any) -> None:
            there.append(dict(host.docker["containers"]))
            replace(*words)

        monkeypatch.setattr(dify_backups, "replace_volumes", look)
        host.converge(OLD)
        assert there == [{}]
        assert host.files == host.docker["database"] == f" {OLD} work"
        assert host.stack(OLD).pending() == []

    @pytest.mark.parametrize("what", ["cut", "other member", "room", "secrets"])
    def test_of_what_cannot_be_put_back_changes_nothing(
        self, host: Host, what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        restore = host.root / "restore.tar"
        (host.folder / "secrets.json").write_text('{"db_password": "mine"}')
        shutil.copyfile(host.stack(OLD).backups.make(), restore)
        if what == "cut":
            os.truncate(restore, restore.stat().st_size // 2)
        elif what == "other member":
            with tarfile.open(restore, "a") as archive:
                archive.addfile(tarfile.TarInfo("./../../etc/cron.d/x"))
        elif what == "secrets":
            (host.folder / "secrets.json").write_text('{"db_password": "another"}')
        else:
            usage = shutil.disk_usage("/")
            monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
        before, files = copy.deepcopy(host.docker["containers"]), host.files
        with pytest.raises(ProgramError, match=r"lay another archive ready, or rm .*restore\.tar"):
            host.converge(OLD)
        assert host.docker["containers"] == before
        assert host.files == files
        assert not (host.root / ".restore").exists()
        restore.unlink()
        assert host.stack(OLD).pending() == []


class TestBackup:
    @pytest.mark.parametrize(
        "state",
        [
            {},
            {"version": OLD, "installing": True},
            {"version": OLD, "under_way": "an upgrade"},
            {"phase": "installing", "version": OLD},
            {"phase": "replaced", "version": OLD, "to": NEW},
        ],
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
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_200_000_000))
        host.docker["calls"].clear()
        assert host.do("backup") == 1
        assert "it may take 1.3 GB" in capsys.readouterr().err
        assert not [call for call in host.docker["calls"] if "pause" in call]
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_400_000_000))
        monkeypatch.setattr(dify_backups, "tar", lambda target, *_: target.touch())
        assert host.do("backup") == 0

    def test_is_roots_alone_while_it_is_written(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The directory may be one that others read."""
        (host.folder / "backups").mkdir(mode=0o755)
        modes: set[str] = set()
        monkeypatch.setattr(archives, "sync", lambda part: modes.add(oct(part.stat().st_mode)))
        run = common.run

        def watch(*words: str, **more: Any) -> str:
            said: str = run(*words, **more)
            parts = host.folder.glob("backups/.part-*")
            modes.update(oct(part.stat().st_mode & 0o77) for part in parts)
            return said

        for module in (dify_backups, dify_volumes):
            monkeypatch.setattr(module, "run", watch)
        archive = host.stack(OLD).backups.make()
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
        run, running = common.run, []

        def watch(*words: str, **more: Any) -> str:
            if words[0] == "gzip" or "--gzip" in words:
                running.append(host.running)
            said: str = run(*words, **more)
            return said

        for module in (dify_backups, dify_volumes):
            monkeypatch.setattr(module, "run", watch)
        host.stack(OLD).backups.make()
        assert running == [{OLD}]

    def test_unpause_lets_a_backup_that_runs_be(self, host: Host) -> None:
        """It freezes for a reason, and a deploy's end must not wait for it either."""
        ids = [item["Id"] for item in host.docker["containers"].values()]
        common.run("docker", "pause", *ids)
        with locked(host.root):
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
        dump, waits = dify_volumes.dump, []

        class LetGoError(Exception):
            """In the place of a pause that ends."""

        def let_go(_: float) -> None:
            waits.append(is_frozen(host.root))
            raise LetGoError

        def check_and_dump(*words: Any) -> None:
            monkeypatch.setattr(time, "sleep", let_go)
            with pytest.raises(LetGoError):
                host.do("check")
            monkeypatch.setattr(time, "sleep", lambda _: None)
            dump(*words)

        monkeypatch.setattr(dify_backups, "dump", check_and_dump)
        assert host.do("backup") == 0
        assert waits == [True]
        assert "pending" not in capsys.readouterr().out
        assert host.do("check") == 0
        assert '{"pending": []}' in capsys.readouterr().out

    def test_pause_that_a_killed_one_left_is_seen(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def kill(*_: Any) -> None:
            monkeypatch.setattr(Containers, "unpause", lambda _: None)
            raise Killed

        monkeypatch.setattr(dify_backups, "dump", kill)
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
            with locked(host.root, wait=False) as mine:
                held.append(not mine)

        monkeypatch.setattr(dify_client, "apply", apply)
        assert host.do("setup") == 0
        assert held == [True]

    def test_dump_does_not_wait_for_ever_for_a_lock(self, host: Host) -> None:
        """... that one of the paused may hold."""
        host.stack(OLD).backups.make()
        (dump,) = (call for call in host.docker["calls"] if "pg_dump" in call)
        assert "--lock-wait-timeout=60000 -d" in dump

    def test_archives_of_a_wrong_clock_count_for_nothing(self, host: Host) -> None:
        """Or none would be made until then, and each that is would be deleted at once."""
        (host.folder / "backups").mkdir()
        for number in range(9):
            path = host.folder / "backups" / f"dify-{OLD}-2099010{number}T000000Z.tar"
            path.touch()
            os.utime(path, (4e9 + number, 4e9 + number))
        assert host.do("backup", "--due") == 0
        names = {path.name for path in host.folder.glob("backups/*.tar")}
        assert len([name for name in names if "2099" not in name]) == 1
        assert len(names) == 9
