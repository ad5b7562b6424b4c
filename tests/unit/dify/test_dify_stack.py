"""The stack from bare, from what was cut off, and after a boot: what is left whenever it ends."""

from __future__ import annotations

import copy
import shutil
import time
from typing import Any

import pytest

from common import ProgramError
from dify_console import Dify
from dify_containers import Containers
from dify_freeze import locked
from dify_health import stale_nginx
from dify_state import StateFile
from tests.unit.dify import docker
from tests.unit.dify.dify_host import NEW, NEWER, OLD, Host, Killed, killed_at


class TestFirstInstallation:
    @pytest.fixture
    def bare(self, host: Host) -> Host:
        """A host on which nothing was ever installed."""
        shutil.rmtree(host.root)
        host.tell(containers={}, database="")
        return host

    @pytest.mark.parametrize("declared", [OLD, NEWER])
    @pytest.mark.parametrize("method", [None, (Containers, "down"), (StateFile, "_keep")])
    def test_that_never_came_up_may_be_followed_by_any_version(
        self, bare: Host, monkeypatch: pytest.MonkeyPatch, declared: str, method: Any
    ) -> None:
        bare.tell(unwell=["db_postgres"])
        with pytest.raises(ProgramError, match="db_postgres is unhealthy"):
            bare.converge(NEW)
        bare.tell(unwell=[])
        (bare.root / "volumes" / "files").write_text("half of it")
        if method:
            killed_at(monkeypatch, *method)
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
        killed_at(monkeypatch, Containers, "wait_answer", after=True)
        with pytest.raises(Killed):
            bare.converge(OLD)
        assert bare.stack(OLD).pending() == ["the first installation was cut off"]
        bare.converge(OLD)
        assert bare.stack(OLD).pending() == []
        bare.work("work")
        bare.converge(NEW)
        assert "work" in bare.docker["database"]
        assert not list(bare.root.glob("volumes.before-*"))


class TestAfterABoot:
    """Docker has started what it could, in no order."""

    @pytest.fixture
    def answering(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Dify, "setup_state", lambda _: "finished")

    @pytest.mark.usefixtures("answering")
    def test_old_addresses_are_forgotten(self, host: Host) -> None:
        host.docker["containers"]["api"]["State"] = docker.running(host.docker)
        before = copy.deepcopy(host.docker["containers"])
        # Until it is probed for the first time, half a minute from now.
        host.docker["containers"]["api"]["State"]["Health"] = {"Status": "starting"}
        host.stack(OLD).settle()
        assert stale_nginx(host.docker["containers"]) is None
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
        containers["api_websocket"] = containers["api"] | {"State": docker.running(host.docker)}
        assert stale_nginx(containers) is None

    @pytest.mark.usefixtures("answering")
    def test_address_that_comes_late(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        host.docker["containers"]["nginx"]["State"]["Status"] = "exited"
        host.tell(address_missing=True)
        waits = []

        def comes(seconds: float) -> None:
            waits.append(seconds)
            with locked(host.root, wait=False) as mine:
                assert mine, "a deploy would wait"
            host.tell(address_missing=len(waits) < 3)

        monkeypatch.setattr(time, "sleep", comes)
        assert host.do("settle") == 0
        assert host.running == {OLD}
        assert len(waits) == 4

    def test_answer_is_waited_for(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        states = iter([None, None, "finished"])
        monkeypatch.setattr(Dify, "setup_state", lambda _: next(states))
        assert host.do("settle") == 0
        assert next(states, "all asked") == "all asked"

    def test_unwell_one_is_a_failure_and_tried_again_by_systemd(
        self, host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        now = iter(range(0, 1000, 3))
        monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
        host.docker["containers"]["api"]["State"]["Status"] = "restarting"
        assert host.do("settle") == 1
        assert "api: restarting" in capsys.readouterr().err

    def test_what_was_cut_off_and_what_is_declared_is_a_deploys(
        self, host: Host, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        killed_at(monkeypatch, Containers, "down")
        with pytest.raises(Killed):
            host.converge(NEW)
        before = copy.deepcopy(host.docker)
        assert host.do("settle") == 0
        assert host.docker["containers"] == before["containers"]
