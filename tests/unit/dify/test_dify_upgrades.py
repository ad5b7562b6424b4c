"""Upgrades and returns: what is left whenever one ends."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest

import dify_backups
import dify_containers
from common import ProgramError
from dify_backups import Backups
from dify_console import Dify, DifyError
from dify_containers import Containers
from dify_upgrades import Upgrades
from tests.unit.dify.dify_host import NEW, NEWER, OLD, Host, Killed, failing, killed_at


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
        monkeypatch.setattr(Upgrades, "_make_ready", lambda *_: None)
        monkeypatch.setattr(Dify, "wait_ready", lambda _: left.append(host.docker["migrating"]))
        left: list[int] = []
        host.tell(migrating=3)
        host.converge(NEW)
        assert set(left) == {0}

    @pytest.mark.parametrize("what", ["folder", "image", "tag", "password", "proof", "store"])
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
            monkeypatch.setattr(dify_containers, "image_problem", lambda _: "a tag that moves")
        elif what == "password":
            known = host.folder / "opt" / NEW / "docker" / ".env.example"
            known.write_text("SECRET_KEY=\nNEW_PASSWORD=difyai123456\n")
        elif what == "store":
            target = "2.0.0"
            host.offer(target)
        else:
            failing(monkeypatch, host, DifyError("no app"), versions={OLD})
        before = copy.deepcopy(host.docker["containers"])
        with pytest.raises(ProgramError):
            host.converge(target)
        assert host.docker["containers"] == before
        assert host.stack(OLD).pending() == []

    @pytest.mark.parametrize("error", [DifyError("no"), ValueError("no JSON"), KeyError("answer")])
    def test_failed_one_is_taken_back(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        failing(monkeypatch, host, error, versions={NEW})
        with pytest.raises(ProgramError, match=r"was taken back, 1\.16\.1 runs"):
            host.converge(NEW)
        assert host.running == {OLD}
        assert host.docker["database"] == host.files == f" {OLD} work"
        assert host.stack(OLD).pending() == []

    def test_work_in_one_that_failed_is_put_aside(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It took requests until it had failed."""

        def prove(stack: Any) -> None:
            if host.running == {NEW}:
                host.work("more")
                raise DifyError("no")

        monkeypatch.setattr(Upgrades, "_prove", prove)
        with pytest.raises(ProgramError) as caught:
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
        usage = shutil.disk_usage("/")
        # Where Docker's images are, there is room.
        small = usage._replace(free=1_100_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda at: usage if at == "/" else small)
        before = copy.deepcopy(host.docker["containers"])
        with pytest.raises(ProgramError, match=r"no upgrade to 1\.17\.1: it may take 1\.2"):
            host.converge(NEW)
        assert host.docker["containers"] == before
        assert host.stack(OLD).pending() == []

    def test_whose_images_could_fill_the_disk_stops_nothing(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host.tell(image_size=3_000_000_000)
        usage = shutil.disk_usage("/")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=9_000_000_000))
        before = copy.deepcopy(host.docker["containers"])
        with pytest.raises(ProgramError, match=r"no upgrade to 1\.17\.1: its 4 images .* 12\.0 GB"):
            host.converge(NEW)
        assert host.docker["containers"] == before
        assert not [image for image in host.docker["images"] if image.endswith(NEW)]

    def test_working_copy_that_is_gone_is_no_obstacle_to_the_return(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk that is full by then, say."""
        shutil.rmtree(host.folder / "opt" / NEW)
        monkeypatch.setattr(Upgrades, "_make_ready", lambda *_: None)
        with pytest.raises(ProgramError, match=r"no docker/docker-compose\.yaml"):
            host.converge(NEW)
        assert host.running == {OLD}
        assert host.docker["database"] == f" {OLD} work"

    def test_full_disk_at_the_backup_brings_the_old_one_back(self, host: Host) -> None:
        host.tell(full=True)
        with pytest.raises(ProgramError, match="No space left"):
            host.converge(NEW)
        assert host.running == {OLD}
        assert host.stack(OLD).pending() == []

    @pytest.mark.parametrize(
        ("method", "after", "declared"),
        [
            ((Backups, "make"), False, OLD),
            ((Backups, "make"), True, NEW),
            ((Containers, "down"), False, NEWER),
            ((Containers, "down"), True, OLD),
            ((Containers, "down"), True, NEW),
            ((Containers, "wait_well"), False, OLD),
            ((Containers, "wait_well"), True, NEW),
            ((Containers, "wait_well"), True, NEWER),
        ],
    )
    def test_killed_one_converges(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, method: Any, declared: str, after: bool
    ) -> None:
        """Wherever it was cut off, and whatever is declared then; what was there is still there."""
        killed_at(monkeypatch, *method, after=after)
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
        killed_at(monkeypatch, Backups, "make", after=True)
        with pytest.raises(Killed):
            host.converge(NEW)
        host.work("more")
        failing(monkeypatch, host, DifyError("no"), versions={NEW})
        if declared == NEW:
            with pytest.raises(ProgramError):
                host.converge(NEW)
        else:
            host.converge(OLD)
        assert host.running == {OLD}
        assert host.docker["database"] == host.files == f" {OLD} work more"

    def test_work_in_the_new_one_is_put_aside_by_a_return(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed_at(monkeypatch, Containers, "wait_answer", after=True)
        with pytest.raises(Killed):
            host.converge(NEW)
        host.work("more")
        killed_at(monkeypatch, Containers, "start_database")
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
        failing(monkeypatch, host, DifyError("no"), versions={NEW})
        killed_at(monkeypatch, dify_backups, "replace_volumes")
        with pytest.raises(Killed):
            host.converge(NEW)
        host.tell(database="half of it")
        host.converge(OLD)
        assert host.running == {OLD}
        assert host.docker["database"] == f" {OLD} work"
