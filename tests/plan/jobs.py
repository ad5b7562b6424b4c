"""Jobs of hosts, as a plan and then a deploy looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyinfra.context import ctx_state

from fleet.kit.facts.jobs import Job


def job(*seen: Job) -> Callable[..., Job]:
    """A job that is not there while the deploy is planned, then goes through what is `seen`."""
    left = list(seen)

    def look(**_: Any) -> Job:
        if not ctx_state.get().is_executing:
            return Job()
        return left.pop(0) if len(left) > 1 else left[0]

    return look


def still_running(running: Job) -> Callable[..., Job]:
    """A job that runs all the time that the deploy is planned, and ends when it is executed."""
    asked = []

    def look(**_: Any) -> Job:
        if ctx_state.get().is_executing:
            return Job()
        asked.append(running)
        assert len(asked) < 10, "the plan waits for what runs on the host"
        return running

    return look
