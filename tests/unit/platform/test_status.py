"""Ports that nobody listens on, and units that failed."""

from __future__ import annotations

import pytest

from fleet.declare.status import Told
from fleet.platform import status
from tests.fleets import BOX, fleet_of


def told(sockets: list[str], units: list[str]) -> list[Told]:
    fleet = fleet_of({"box": (BOX[0], {**BOX[1], "gateway_metrics": "off"})})
    look = next(iter(status.looks(fleet["box"], fleet)))
    return list(look.tell([sockets, units]))


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
