"""What Docker says of containers, and what that means."""

from __future__ import annotations

import os
from typing import Any

import pytest

from common import ProgramError
from dify_health import began_at, stale_nginx, state_trouble
from tests.unit.dify import docker
from tests.unit.dify.dify_host import Host


@pytest.mark.parametrize(
    ("state", "restart", "problem"),
    [
        ({"Status": "running"}, "always", None),
        ({"Status": "running", "Health": {"Status": "healthy"}}, "always", None),
        ({"Status": "running", "Health": {"Status": "unhealthy"}}, "always", "x: unhealthy"),
        (
            {"Status": "running", "Health": {"Status": "unhealthy", "FailingStreak": 0}},
            "always",
            "x: starting",
        ),
        ({"Status": "paused"}, "always", "x: paused"),
        ({"Status": "exited", "ExitCode": 0}, "no", None),
        ({"Status": "exited", "ExitCode": 1}, "no", "x: ended with 1"),
        ({"Status": "exited", "ExitCode": 0}, "always", "x: exited"),
    ],
)
def test_state(state: dict[str, Any], restart: str, problem: str | None) -> None:
    trouble = state_trouble("x", {"restart": restart}, state)
    assert (str(trouble) if trouble else None) == problem
    assert (trouble is not None and trouble.passes) == (problem == "x: starting")


def test_door_that_knows_the_addresses_before_a_restart(host: Host) -> None:
    containers = host.docker["containers"]
    assert stale_nginx(containers) is None
    containers["api"]["State"] = docker.running(host.docker)
    assert str(stale_nginx(containers)) == "nginx: started before api"
    # Docker's time of day says nothing: the clock was set in between.
    containers["api"]["State"]["StartedAt"] = "2000-01-01T00:00:00Z"
    containers["nginx"]["State"] = docker.running(host.docker)
    containers["nginx"]["State"]["StartedAt"] = "1999-01-01T00:00:00Z"
    assert stale_nginx(containers) is None


def test_when_a_process_began() -> None:
    own = began_at({"State": {"Pid": os.getpid()}})
    first = began_at({"State": {"Pid": 1}})
    assert own is not None
    assert first is not None
    assert own > first
    assert began_at({"State": {"Pid": 0}}) is None
    # In a unit that sees its own processes only, every nginx would be a fresh one.
    with pytest.raises(ProgramError, match="process 4194305 of x is not to be seen"):
        began_at({"Id": "x", "State": {"Pid": 4194305}})
    assert began_at({"State": {"Status": "created"}}) is None
