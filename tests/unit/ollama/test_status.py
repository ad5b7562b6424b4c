"""Which release answers, compared with the declared one."""

from __future__ import annotations

import pytest

from fleet.declare.status import Told
from fleet.ollama import status
from tests.fleets import FLEETS, GPU, fleet_of


def told(answer: str) -> Told:
    fleet = fleet_of({"gpu1": ("gpu", {**GPU[1], "ollama_version": "0.32.7"})})
    [look] = status.looks(fleet["gpu1"], fleet)
    [item] = look.tell([[answer] if answer else []])
    return item


def test_declared_release() -> None:
    item = told('{"version":"0.32.7"}')
    assert (item.text, item.problem) == ("Ollama 0.32.7", "")
    assert item.values["servers"][""] == {
        "version": "0.32.7", "declared": "0.32.7", "unit": "ollama.service",
    }  # fmt: skip


def test_another_release() -> None:
    assert "runs Ollama 0.31.0, and declared is 0.32.7" in told('{"version":"0.31.0"}').problem


@pytest.mark.parametrize("answer", ["", "{}", "<html>", '{"version": 5}', '{"version": null}'])
def test_no_answer_of_ollama(answer: str) -> None:
    item = told(answer)
    assert item.text == "Ollama does not answer"
    assert "journalctl -u ollama.service" in item.problem


def test_each_instance_by_its_name() -> None:
    fleet = fleet_of(FLEETS["instances"])
    looks = list(status.looks(fleet["gpu1"], fleet))
    [first], [second] = (look.tell([['{"version":"9.9.9"}']]) for look in looks)
    assert first.text == "a: Ollama 9.9.9"
    assert first.problem
    # Of an image nobody declares the version.
    assert (second.text, second.problem) == ("b: Ollama 9.9.9", "")
