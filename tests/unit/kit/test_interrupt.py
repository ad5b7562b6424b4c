"""What an interrupted run says of each host."""

from __future__ import annotations

import pytest
from pyinfra.api import Config, State
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import StateOperationMeta

from fleet.kit.interrupt import left_behind
from fleet.kit.jobs import awaited


@pytest.fixture
def state() -> State:
    """Three hosts, in the middle of a run."""
    state = State(Inventory((["gpu1", "gpu2", "edge"], {})), Config())
    meta = StateOperationMeta((1,))
    meta.names = {"Models | Provide the models"}
    state.op_meta["op"] = meta
    for host in state.inventory:
        state.activate_host(host)
    state.is_executing = True
    return state


def test_a_host_that_works_on_by_itself_is_told_with_how_to_look(state: State) -> None:
    gpu1, gpu2, edge = state.inventory
    gpu1.executing_op_hash = gpu2.executing_op_hash = "op"
    awaited[gpu1] = "ollama-models.service"
    state.failed_hosts.add(edge)
    assert list(left_behind(state)) == [
        "gpu1: ollama-models.service goes on by itself; look there with: journalctl -f -u "
        "ollama-models.service, stop it with: systemctl stop ollama-models.service",
        'gpu2: cut off in "Models | Provide the models"; a command that it runs may go on to its '
        "end",
        "edge: failed before",
        "nothing is undone, and the hosts' locks are free: deploy again to go on from here",
    ]


def test_a_run_that_only_looked_has_changed_nothing(state: State) -> None:
    state.is_executing = False
    assert (
        list(left_behind(state)) == list(left_behind(None)) == ["nothing was changed on any host"]
    )
