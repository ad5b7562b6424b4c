"""Which hosts a run locks, in which order, and what it makes of those that it cannot have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from paramiko import SSHException
from pyinfra.api import Config, Host, State
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.inventory import Inventory
from pyinfra.connectors.local import LocalConnector
from pyinfra.context import ctx_host, ctx_state

from fleet.kit import run
from fleet.kit.connection.careful import careful
from fleet.kit.errors import FleetError

NAMES = ("gpu2", "edge", "gpu1")


class Lockable(careful(LocalConnector)):  # type: ignore[misc]
    """A host whose lock is another's, or cannot be had."""

    asked: list[str]
    outcome: dict[str, str | Exception]

    def hold(self, *, force: bool = False) -> str:
        self.asked.append(self.host.name)
        outcome = self.outcome.get(self.host.name, "")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def let_go(self) -> None:
        self.asked.append(f"not {self.host.name}")


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[State]:
    """Three hosts, of which each runs its operations."""
    monkeypatch.setattr(Lockable, "asked", [], raising=False)
    monkeypatch.setattr(Lockable, "outcome", {}, raising=False)
    state = State(Inventory(([f"@fake/{name}" for name in NAMES], {})), Config())
    state.is_executing = True
    ctx_state.set(state)
    for host in state.inventory:
        host.connector = Lockable(state, host)
        state.activate_host(host)
    yield state
    ctx_host.reset()
    ctx_state.reset()


def lock(host: Host) -> str:
    """What the two first operations of a deploy say to `host`; empty when it goes on."""
    ctx_host.set(host)
    list(run.lock_host._inner())
    return " ".join(command.get_raw_value() for command in run.give_way._inner())


def named(state: State) -> list[Host]:
    return [state.inventory.get_host(f"@fake/{name}") for name in NAMES]


def test_all_are_locked_in_the_inventorys_order(state: State) -> None:
    """... whichever of them comes first: each other run goes the same way."""
    assert [lock(host) for host in reversed(named(state))] == ["", "", ""]
    assert Lockable.asked == [f"@fake/{name}" for name in NAMES]


def test_another_run_on_one_keeps_all_as_they_are(state: State) -> None:
    Lockable.outcome["@fake/edge"] = "alice@desk, run 1 since today"
    for host in reversed(named(state)):
        assert "nothing was changed on any host, another deploy is at work: @fake/edge by " in (
            lock(host)
        )
    assert "@fake/gpu1" not in Lockable.asked


def test_host_that_cannot_be_locked_fails_alone(state: State) -> None:
    Lockable.outcome["@fake/edge"] = OSError("gone")
    gpu2, edge, gpu1 = named(state)
    assert (lock(gpu2), lock(gpu1)) == ("", "")
    with pytest.raises(ConnectError, match="the host cannot be locked: gone"):
        lock(edge)


def test_failed_hosts_are_left_out(state: State) -> None:
    state.fail_hosts({named(state)[0]})
    assert lock(named(state)[1]) == ""
    assert Lockable.asked == ["@fake/edge", "@fake/gpu1"]


@pytest.mark.parametrize(
    "error", [OSError("gone"), ConnectError("gone"), SSHException("gone"), EOFError("gone")]
)
def test_command_is_told_that_a_host_cannot_be_locked(state: State, error: Exception) -> None:
    Lockable.outcome["@fake/edge"] = error
    with pytest.raises(FleetError) as refused, run.locked(named(state)):
        pytest.fail("it is not locked")
    assert str(refused.value) == "@fake/edge: the host cannot be locked: gone"
    assert "not @fake/gpu2" in Lockable.asked


def test_command_lets_go_of_what_it_held(state: State) -> None:
    Lockable.outcome["@fake/edge"] = "alice@desk, run 1 since today"
    message = "@fake/edge: another deploy is at work there: by alice@desk, run 1 since today"
    with pytest.raises(FleetError) as refused, run.locked(named(state)):
        pytest.fail("somebody else is at work")
    assert str(refused.value) == message
    assert Lockable.asked == [
        "@fake/gpu2", "@fake/edge", "not @fake/gpu2", "not @fake/edge"
    ]  # fmt: skip
