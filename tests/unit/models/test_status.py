"""Which models are ready, and how far the others are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.declare.status import Told
from fleet.models import status
from tests.fleets import GPU, fleet_of

READY = {"phase": "ready", "completed": 5, "total": 5, "rate": 0, "error": ""}
PULLING = {
    "phase": "pulling", "completed": 43_000_000, "total": 100_000_000, "rate": 1_000_000,
    "error": "",
}  # fmt: skip
FAILED = {"phase": "failed", "completed": 0, "total": 0, "rate": 0, "error": "no room"}


def told(models: Any, names: list[str], text: str | None = None) -> list[Told]:
    fleet = fleet_of({"gpu1": ("gpu", {**GPU[1], "ollama_models": names})})
    [look] = status.looks(fleet["gpu1"], fleet)
    return list(look.tell([[text or json.dumps({"models": models})], ["active"]]))


def test_all_are_ready() -> None:
    [item] = told({"gpt-oss:20b": READY}, ["gpt-oss:20b"])
    assert item.text == "models 1/1 ready"
    assert item.values["models"]["gpt-oss:20b"]["phase"] == "ready"
    assert item.values["loader"] == "active"
    assert not item.problem


def test_one_is_pulled() -> None:
    items = told({"gpt-oss:20b": READY, "b:1": PULLING}, ["gpt-oss:20b", "b:1"])
    assert [item.text for item in items] == ["models 1/2", "b:1 pulling"]
    assert items[1].problem == ("b:1 is not ready: pulling 43 % of 100.0 MB, 1.0 MB/s, 0m57s left")
    assert items[0].values["models"]["b:1"]["left"] == 57


def test_one_failed() -> None:
    problem = told({"b:1": FAILED}, ["b:1"])[1].problem
    assert "(before: no room)" in problem
    assert "journalctl -u ollama-models.service" in problem


def test_one_is_not_known_yet() -> None:
    items = told({"gpt-oss:20b": READY}, ["gpt-oss:20b", "new"])
    assert items[0].text == "models 1/2"
    assert items[0].values["models"]["new:latest"] == {"phase": None}
    assert items[1].problem.startswith("new:latest is declared, and the loader does not know")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"models": {"a": 5}}', "x" * 50])
def test_whatever_the_file_holds(text: str) -> None:
    """`auto` has no name of its own: without any, nothing is ready."""
    items = told({}, ["auto"], text or " ")
    assert items[0].text == "models 0/0"
    assert "has told of nothing yet" in items[1].problem
