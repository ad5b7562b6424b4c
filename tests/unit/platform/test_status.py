"""Ports that nobody listens on, and units that failed."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest

from fleet.declare.status import Told
from fleet.platform import status
from fleet.platform.record import DEPLOYED, DEPLOYING, SCHEMA
from tests.fleets import BOX, fleet_of


def told(sockets: list[str], units: list[str]) -> list[Told]:
    fleet = fleet_of({"box": (BOX[0], {**BOX[1], "gateway_metrics": "off"})})
    look = next(iter(status.looks(fleet["box"], fleet)))
    return list(look.tell([sockets, units]))


class TestRecord:
    DEPLOYED: ClassVar = {
        "schema": SCHEMA, "version": "0.3.0", "commit": "ab" * 20, "dirty": True,
        "who": "ops@desk", "when": "2026-11-30T20:15:00Z", "run": "1a2b3c4d", "settings": "cd" * 32,
    }  # fmt: skip
    BEGUN: ClassVar = {
        "run": "1a2b3c4d", "who": "bob@lap", "since": "2026-11-30T20:10:00Z", "commit": None,
    }  # fmt: skip

    def told(self, *lines: str) -> list[Told]:
        fleet = fleet_of({"box": BOX})
        return list(list(status.looks(fleet["box"], fleet))[1].tell([list(lines)]))

    def test_last_deploy(self) -> None:
        [item] = self.told(f"{DEPLOYED} {json.dumps(self.DEPLOYED)}")
        assert item.text == "deployed abababa-dirty 2026-11-30 20:15 UTC by ops@desk"
        assert item.values["deployed"]["who"] == "ops@desk"
        assert not item.problem

    def test_none(self) -> None:
        assert self.told() == []

    def test_that_did_not_end(self) -> None:
        begun = f"{DEPLOYING} {json.dumps(self.BEGUN)}"
        [item] = self.told(begun)
        assert "the deploy of bob@lap (run 1a2b3c4d) began at" in item.problem
        [item] = self.told(begun, "lock bob@lap, run 1a2b3c4d since 2026-11-30 20:10 UTC")
        assert (item.text, item.problem) == ("deploy at work", "")

    def test_that_somebody_else_wrote(self) -> None:
        [item] = self.told(f"{DEPLOYED} []")
        assert "deploy, which writes it anew" in item.problem


def line(where: str) -> str:
    return f"LISTEN 0 4096 {where} 0.0.0.0:*"


@pytest.mark.parametrize("gateway", ["10.0.0.5:8434", "0.0.0.0:8434", "*:8434"])
def test_whoever_listens_somewhere_near(gateway: str) -> None:
    items = told([line("127.0.0.1:11434"), line(gateway)], [])
    assert [item.problem for item in items] == [""]
    assert items[0].values == {"closed_ports": [], "failed_units": []}


@pytest.mark.parametrize(
    "sockets",
    [
        [],
        [line("10.0.0.6:8434"), line("[::1]:8434"), line("127.0.0.1:11434")],
        [line("127.0.0.1:11434"), "x", line("a:b"), line("x:8434"), line("[::1:8434")],
    ],
)
def test_nobody_listens(sockets: list[str]) -> None:
    found = [item.problem for item in told(sockets, []) if item.problem]
    assert any("gateway_port = 8434 (gateway)" in text for text in found)


def test_failed_units() -> None:
    ours = "llm-fleet-gateway-logs.service loaded failed failed Rotate"
    items = told([line("127.0.0.1:11434"), line("10.0.0.5:8434")], [ours, ""])
    assert items[-1].problem.startswith("failed: llm-fleet-gateway-logs.service; see")
