"""What a deploy that is only planned says of restarts, and of whom they would cut off."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pytest

from fleet.gateway.facts import DrainedHosts
from fleet.gateway.traffic import NginxTraffic, Traffic
from tests.fleets import EDGE, GPU
from tests.plan.conftest import from_bare, in_declared_state
from tests.plan.simulation import Answers, plan

HOSTS = {"gpu1": GPU, "edge": EDGE}


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    """What a plan of changed settings says of restarts."""
    caplog.set_level(logging.INFO, "pyinfra")

    def tell(
        of_edge: Answers | None = None, gpu: dict[str, Any] | None = None, **edge: Any
    ) -> list[str]:
        answers = in_declared_state("two hosts", from_bare("two hosts"))
        answers["edge"] |= of_edge or {}
        hosts = {
            "gpu1": (GPU[0], {**GPU[1], **(gpu or {})}),
            "edge": (EDGE[0], {**EDGE[1], **edge}),
        }
        caplog.clear()
        plan(hosts, answers)
        lines = [record.getMessage().strip() for record in caplog.records]
        return [line for line in lines if "would be" in line and not line.startswith("-->")]

    return tell


def test_nothing_is_told_of_a_deploy_that_restarts_nothing(told: Any) -> None:
    assert told() == []


def test_a_unit_whose_file_would_be_new_is_told_with_whom_that_cuts_off(told: Any) -> None:
    """Though nothing is written yet that the unit could be older than."""
    traffic = Traffic(Counter({"@fake/gpu1": 3}), Counter(), Counter({8443: 7}))
    [line] = told({NginxTraffic: lambda: traffic}, gpu={"ollama_keep_alive": "1h"})
    assert line == (
        "@fake/gpu1: ollama.service would be restarted (/etc/systemd/system/ollama.service): "
        "cuts off 3 requests in flight through @fake/edge; no other host could serve"
    )


def test_a_drained_host_is_told_to_be_drained(told: Any) -> None:
    lines = told({DrainedHosts: lambda: {"@fake/gpu1": ""}}, gpu={"ollama_keep_alive": "1h"})
    [line] = [line for line in lines if "ollama.service" in line]
    assert "cuts off 0 requests in flight through @fake/edge, drained there;" in line


def test_a_key_that_is_taken_back_cuts_nobody_off(told: Any) -> None:
    """nginx is told of it by a reload, and no GPU host has to do with it."""
    [line] = told(gateway_keys=["team-b"])
    assert line.startswith("@fake/edge: nginx.service would be reloaded (/etc/llm-fleet/gateway/")
    assert line.endswith(": cuts off nobody: requests in flight end as they began")
