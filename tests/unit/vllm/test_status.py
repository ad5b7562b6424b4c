"""What `fleet status` says of vLLM's servers."""

from __future__ import annotations

import json

import pytest

from fleet.declare.status import Told
from fleet.vllm import status
from tests.fleets import fleet_of
from tests.unit.vllm.test_settings import host

VERSION = '{"version": "0.32.0"}'


def told(version: str, models: list[str] | str, watch: str = "works") -> Told:
    fleet = fleet_of(host())
    [look] = status.looks(fleet["gpu1"], fleet)
    listed = models
    if isinstance(models, list):
        listed = json.dumps({"data": [{"id": name} for name in models]})
    [item] = look.tell([[version], [str(listed)], [watch]])
    return item


def test_as_declared() -> None:
    item = told(VERSION, ["gpt-oss:120b", "openai/gpt-oss-120b"])
    assert (item.text, item.problem) == ("gpt-oss: vLLM 0.32.0", "")
    assert item.values["servers"]["gpt-oss"]["watch"] == "works"


def test_other_names() -> None:
    item = told(VERSION, ["gpt-oss:120b"])
    assert "does not serve openai/gpt-oss-120b" in item.problem


@pytest.mark.parametrize("models", ["", "{}", '{"data": [{}]}', "<html>"])
def test_whatever_it_answers(models: str) -> None:
    item = told(VERSION, models)
    assert item.text == "gpt-oss: vLLM does not answer"
    assert "journalctl -u vllm@gpt-oss.service" in item.problem


def test_it_does_not_answer() -> None:
    assert told("", "").values["servers"]["gpt-oss"]["version"] is None


def test_endless_version_is_cut() -> None:
    text = told(json.dumps({"version": "9" * 500}), ["gpt-oss:120b"]).text
    assert len(text) < 100
