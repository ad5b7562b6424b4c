"""What Docker says of containers, and what that means."""

from __future__ import annotations

from typing import Any

import pytest

from dify_health import moment, stale_nginx, state_trouble
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


def test_moment_has_nine_digits_or_none() -> None:
    whole = moment("2026-11-21T07:00:00Z")
    assert moment("2026-11-21T07:00:00.250000000Z") == whole + 0.25


def test_door_that_knows_the_addresses_before_a_restart(host: Host) -> None:
    containers = host.docker["containers"]
    containers["api"]["State"]["StartedAt"] = "2100-01-01T00:00:00Z"
    assert str(stale_nginx(containers)) == "nginx: started before api"
