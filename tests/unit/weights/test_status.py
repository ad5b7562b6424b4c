"""What `fleet status` says of weights."""

from __future__ import annotations

import json

from fleet.declare.fleet import Fleet
from fleet.weights.status import looks


def told(fleet: Fleet, state: str, unit: str = "active") -> list[tuple[str, str]]:
    [look] = looks(fleet["gpu1"], fleet)
    return [(item.text or "", item.problem or "") for item in look.tell([[state], [unit]])]


def state(phase: str, completed: int, error: str = "") -> str:
    item = {"phase": phase, "completed": completed, "total": 100, "rate": 10, "error": error}
    return json.dumps({"models": {"toy": item}})


def test_ready(alternative: Fleet) -> None:
    assert told(alternative, state("ready", 100)) == [("weights 1/1 ready", "")]


def test_on_its_way(alternative: Fleet) -> None:
    assert told(alternative, state("fetching", 43)) == [
        ("weights 0/1", ""),
        ("toy fetching", "toy is not ready: fetching 43 % of 100 B, 10 B/s, 0m06s left"),
    ]


def test_failed(alternative: Fleet) -> None:
    [_, (text, problem)] = told(alternative, state("failed", 0, "no room"))
    assert text == "toy failed"
    assert "(before: no room); `journalctl -u llm-fleet-weights.service` there" in problem


def test_never_begun(alternative: Fleet) -> None:
    assert told(alternative, "{}") == [
        ("weights 0/1", ""),
        ("", "toy is declared, and the loader does not know of it: deploy"),
    ]


def test_host_without_weights_is_asked_nothing(default: Fleet) -> None:
    assert list(looks(default["gpu1"], default)) == []
