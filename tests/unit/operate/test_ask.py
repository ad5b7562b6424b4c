"""Hosts are asked side by side, and none of them makes the others wait."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pyinfra.api import Config, FactBase, Host, State, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.inventory import Inventory
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.context import ctx_host, ctx_state

from fleet.kit.connection.careful import careful
from fleet.kit.errors import FleetError
from fleet.operate.ask import AT_ONCE, asked_together

NAMES = ("gpu1", "gpu2", "gpu3")
END = threading.Event()


class OverSsh(careful(SSHConnector)):  # type: ignore[misc]
    """This machine as if it were reached by SSH, or no machine, or one that never answers."""

    down: dict[str, str]
    silent: set[str]

    def connect(self) -> None:
        if self.host.name in self.silent:
            END.wait()
        if why := self.down.get(self.host.name):
            raise ConnectError(why)

    def run_shell_command(self, command: StringCommand, *_: Any, **__: Any) -> Any:
        line = ["sh", "-c", command.get_raw_value()]
        run = subprocess.run(line, capture_output=True, text=True, check=False)
        self.trouble = run.stderr
        lines = [OutputLine("stdout", line) for line in run.stdout.splitlines()]
        return run.returncode == 0, CommandOutput(lines)

    def disconnect(self) -> None:
        pass


class Here(careful(LocalConnector)):  # type: ignore[misc]
    """This machine, by a process."""

    def connect(self) -> None:
        pass


class Echo(FactBase[str]):
    def command(self, text: str) -> StringCommand:
        return StringCommand("echo", text)


class Broken(FactBase[str]):
    def command(self) -> StringCommand:
        return StringCommand("echo first >&2; echo no such thing >&2; false")


class Silence(FactBase[str]):
    def command(self) -> StringCommand:
        return StringCommand("exec sleep 8")


def state_of(connector: type, *names: str) -> State:
    state = State(Inventory((list(names), {})), Config())  # type: ignore[no-untyped-call]
    for host in state.inventory:
        host.connector = connector(state, host)
    return state


@pytest.fixture(autouse=True)
def end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(OverSsh, "down", {}, raising=False)
    monkeypatch.setattr(OverSsh, "silent", set(), raising=False)
    END.clear()
    yield
    END.set()
    ctx_host.reset()
    ctx_state.reset()


@pytest.fixture
def state() -> State:
    return state_of(OverSsh, *NAMES)


@pytest.fixture
def here() -> State:
    return state_of(Here, *NAMES)


def name(host: Host) -> str:
    """Its name, as a command on it and as pyinfra's own context have it."""
    assert ctx_host.get() is host  # type: ignore[no-untyped-call]
    heard: str = host.get_fact(Echo, text=host.name)
    time.sleep(0.05)
    assert ctx_host.get() is host  # type: ignore[no-untyped-call]
    return heard


def words(found: dict[str, Any]) -> dict[str, str]:
    return {host: str(answer) for host, answer in found.items()}


@pytest.mark.parametrize("connector", [OverSsh, Here])
def test_each_host_answers_for_itself(connector: type) -> None:
    state = state_of(connector, *NAMES)
    found = asked_together(state, state.inventory, name, 20)
    assert found == {host: host for host in NAMES}
    assert list(found) == [host.name for host in state.inventory]
    assert not any(host.connected for host in state.inventory)


def test_one_without_a_connection_is_said_with_its_reason(state: State) -> None:
    OverSsh.down["gpu2"] = "gpu2: Could not connect (refused)"
    found = asked_together(state, state.inventory, name, 20)
    assert words(found) == {"gpu1": "gpu1", "gpu2": "Could not connect (refused)", "gpu3": "gpu3"}
    assert isinstance(found["gpu2"], FleetError)


def test_one_that_is_silent_is_waited_for_until_the_deadline(state: State) -> None:
    OverSsh.silent.add("gpu1")
    start = time.monotonic()
    found = asked_together(state, state.inventory, name, 1.5)
    assert 1.4 < time.monotonic() - start < 5
    assert words(found) == {"gpu1": "no answer within 1.5 s", "gpu2": "gpu2", "gpu3": "gpu3"}


def test_one_that_is_no_ssh_host_is_not_waited_for_either(here: State) -> None:
    def ask(host: Host) -> str:
        return host.get_fact(Silence) if host.name == "gpu2" else name(host)

    start = time.monotonic()
    found = asked_together(here, here.inventory, ask, 2)
    assert time.monotonic() - start < 5
    assert words(found) == {"gpu1": "gpu1", "gpu2": "no answer within 2 s", "gpu3": "gpu3"}


def test_they_are_asked_side_by_side() -> None:
    """... as many as may be, and all others after them."""
    state = state_of(OverSsh, *(f"gpu{number}" for number in range(AT_ONCE * 2)))
    now, most = 0, 0
    lock, all_there = threading.Lock(), threading.Barrier(AT_ONCE)

    def ask(host: Host) -> int:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        all_there.wait(20)
        with lock:
            now -= 1
        return 1

    found = asked_together(state, state.inventory, ask, 60)
    assert list(found.values()) == [1] * AT_ONCE * 2
    assert most <= AT_ONCE


@pytest.mark.parametrize("is_active", [False, True])
def test_a_fact_that_cannot_be_read_is_no_answer(state: State, is_active: bool) -> None:
    """pyinfra itself would answer with the fact's default where other hosts are active."""
    if is_active:
        for host in state.inventory:
            state.activate_host(host)

    def ask(host: Host) -> str:
        return host.get_fact(Broken) if host.name == "gpu2" else "good"

    found = asked_together(state, state.inventory, ask, 20)
    assert words(found) == {"gpu1": "good", "gpu2": "no such thing", "gpu3": "good"}
    assert asked_together(state, state.inventory, name, 20)["gpu2"] == "gpu2"


def test_a_fault_is_no_hosts_trouble(state: State) -> None:
    def ask(host: Host) -> None:
        raise KeyError("no such setting")

    with pytest.raises(KeyError):
        asked_together(state, state.inventory, ask, 20)


def test_nothing_is_printed_beside_the_answers(
    state: State, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asked_together(state, state.inventory, lambda host: host.get_fact(Broken), 20)
    assert caplog.text == ""


def test_nobody_is_asked_without_hosts(state: State) -> None:
    assert asked_together(state, [], name, 0) == {}
