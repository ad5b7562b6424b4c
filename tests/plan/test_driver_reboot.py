"""When a host reboots into its driver, and what follows."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gevent.lock import BoundedSemaphore
from pyinfra.api import FunctionCommand
from pyinfra.connectors.util import CommandOutput, OutputLine

from fleet.driver import operations
from fleet.driver.facts import DriverState, Module
from fleet.kit.facts.units import UnitState
from tests.plan.driver_hosts import (
    CURRENT,
    converged,
    driver_names,
    planned,
)
from tests.plan.simulation import RUNNING


@pytest.fixture(autouse=True)
def _nobody_is_lost() -> Iterator[None]:
    operations._LOST.clear()
    yield
    operations._LOST.clear()


class TestReboot:
    OTHER = replace(CURRENT, loaded=Module("595.71.05", "open"))
    NOUVEAU = replace(CURRENT, loaded=None, nouveau=True)

    FLAVOR = replace(CURRENT, loaded=Module("595.91.07", "proprietary"))

    @pytest.mark.parametrize(
        "state", [OTHER, NOUVEAU, FLAVOR], ids=["other module", "nouveau", "other flavor"]
    )
    def test_state_alone_decides(self, state: DriverState) -> None:
        """Nothing is changed by this run: it was a former one that was cut short."""
        done = planned(converged(state))
        assert driver_names(done) == ["Driver | Reboot into the driver"]
        reboot, wait, judge = done.step("gpu1", "Driver | Reboot into the driver").commands
        assert "systemctl reboot" in str(reboot)
        assert isinstance(wait, FunctionCommand)
        assert wait.args == ("boot", 900.0)
        assert isinstance(judge, FunctionCommand)

    def test_module_that_is_not_loaded_needs_none(self) -> None:
        state = replace(CURRENT, loaded=None)
        assert "Driver | Reboot into the driver" not in driver_names(planned(converged(state)))

    def test_never(self, caplog: pytest.LogCaptureFixture) -> None:
        done = planned(converged(self.OTHER), driver_reboot="never")
        assert driver_names(done) == []
        assert (
            "driver 595.91.07 is installed, 595.71.05 is still loaded; reboot this host yourself"
            in caplog.text
        )

    def test_services_wait_for_the_operators_reboot(self) -> None:
        answers = converged(self.NOUVEAU)
        answers[UnitState] = lambda unit, files: replace(RUNNING, active_state="inactive")
        done = planned(answers, driver_reboot="never")
        assert not [n for n in driver_names(done) if "nodes" in n or "persistence" in n]

    @pytest.mark.parametrize(("policy", "taken"), [("one-at-a-time", True), ("together", False)])
    def test_turn_is_held_while_a_host_is_away(
        self, monkeypatch: pytest.MonkeyPatch, policy: str, taken: bool
    ) -> None:
        """... and given back before the next host's."""
        turn = BoundedSemaphore(1)
        monkeypatch.setattr(operations, "_TURN", turn)
        with operations._turn(policy == "one-at-a-time"):
            assert turn.locked() is taken
        assert not turn.locked()

    def test_nobody_follows_a_host_that_was_lost(self) -> None:
        operations._LOST.append("gpu0")
        [line] = (
            planned(converged(self.OTHER)).step("gpu1", "Driver | Reboot into the driver").lines
        )
        assert "gpu0 did not come back" in line
        assert "exit 1" in line

    def test_together_does_not_ask(self) -> None:
        operations._LOST.append("gpu0")
        done = planned(converged(self.OTHER), driver_reboot="together")
        assert "systemctl reboot" in done.step("gpu1", "Driver | Reboot into the driver").lines[0]


class Machine:
    """A host that reboots: each look at it shows the next of its boots; None is no answer."""

    name = "gpu1"

    def __init__(self, *boots: str | None) -> None:
        self.boots = list(boots)
        self.connected = False
        self.sessions = 0
        self.said: list[str] = []
        self.driver = CURRENT

    def disconnect(self) -> None:
        self.connected = False

    def connect(self, *, show_errors: bool) -> None:
        self.connected = True
        self.sessions += 1

    def run_shell_command(self, command: str) -> tuple[bool, CommandOutput]:
        boot = self.boots.pop(0) if len(self.boots) > 1 else self.boots[0]
        if boot is None:
            raise OSError("Socket is closed")
        return True, CommandOutput([OutputLine("stdout", boot)])

    def get_fact(self, fact: type, **arguments: str) -> DriverState:
        return self.driver

    def log(self, message: str, log_func: object) -> None:
        self.said.append(message)


class TestWaitForBoot:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(operations.gevent, "sleep", lambda _: None)

    def test_the_boot_before_is_not_taken_for_the_next(self) -> None:
        """... nor is a session that ends in the middle of the answer an error."""
        machine = Machine("old", "old", None, "new")
        assert operations.wait_for_boot(None, machine, "old", 60.0)  # type: ignore[arg-type]
        assert machine.sessions == 4
        assert operations._LOST == []

    @pytest.mark.parametrize(("says", "told"), [("stopping", False), ("starting", True)])
    def test_a_host_that_goes_down_has_no_boot(self, tmp_path: Path, says: str, told: bool) -> None:
        """A container's own id is unmounted early in that; what shows then is its machine's."""
        (tmp_path / "systemctl").write_text(f"#!/bin/sh\necho {says}\n")
        (tmp_path / "systemctl").chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        ran = subprocess.run(
            ["sh", "-c", operations._BOOT_ID], env={"PATH": path}, capture_output=True, check=True
        )
        assert bool(ran.stdout) is told

    def test_lost(self) -> None:
        machine = Machine("old")
        assert not operations.wait_for_boot(None, machine, "old", 0.05)  # type: ignore[arg-type]
        assert operations._LOST == ["gpu1"]
        assert machine.said == ["gpu1 did not come back within 0 s; look at its console"]


class TestJudgeBoot:
    """After a reboot of ours: without it a host could be rebooted at every deploy."""

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            (CURRENT, ""),
            (replace(CURRENT, loaded=None), ""),  # the device nodes' unit says why
            (replace(CURRENT, loaded=None, nouveau=True), "nouveau holds the GPU"),
            (
                replace(CURRENT, loaded=Module("595.71.05", "open")),
                "595.71.05 is still loaded, but that was just",
            ),
            (
                replace(CURRENT, installed=None, loaded=None, kernel="7.0"),
                "kernel 7.0, which has no mo",
            ),
        ],
    )
    def test_what_is_in_the_way_is_said(self, state: DriverState, words: str) -> None:
        machine = Machine("new")
        machine.driver = state
        assert operations.judge_boot(None, machine) is (not words)  # type: ignore[arg-type]
        assert [words in line for line in machine.said] == ([True] if words else [])
