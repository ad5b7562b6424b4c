"""Dify on a host of its own, with models by the gateway and its authority: as in production.

Slow, and with `make test-dify` only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import LabUnderTest, _lab

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/dify_gateway.py")


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    """A GPU host, a gateway and Dify, each on a host of its own, after a deploy of them all."""
    for lab in _lab("difygate", "--hosts", "2", "--dify"):
        lab.deploy(inventory=INVENTORY)
        yield lab


def test_bare_hosts_answer_a_chat_through_the_gateway(lab: LabUnderTest) -> None:
    config = json.loads(lab.ssh("dify1", "cat /etc/llm-fleet/dify/client.json"))
    edge = lab.state["hosts"]["edge"]["address"]
    assert config["ollama"]["url"].startswith(f"https://{edge}:")
    ask = "python3 /usr/local/lib/llm-fleet/dify_client.py chat /etc/llm-fleet/dify/client.json"
    assert "Paris" in lab.ssh("dify1", ask)


def test_hosts_are_as_declared(lab: LabUnderTest) -> None:
    assert lab.failing(inventory=INVENTORY) == {}


def test_second_deploy_changes_nothing(lab: LabUnderTest) -> None:
    assert lab.deploy(inventory=INVENTORY) == {}
