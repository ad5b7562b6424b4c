"""What of the settings of models cannot work on a host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fleets import fleet_of
from tests.unit.refusals import assert_refused, pair

MADE = {"name": "analyst", "base": "gpt-oss:120b", "system": "Be brief."}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-oss:20b", "gpt-oss:20b"),
        ("embed", "embed:latest"),
        ("embed:latest", "embed"),
        ("auto", "auto"),
        (MADE, "analyst"),
        (MADE, "gpt-oss:120b"),
    ],
)
def test_declared_model_may_be_offloaded(model: Any, name: str) -> None:
    """By each name that Ollama knows it by, and by that of what it is made of."""
    fleet_of(pair({"ollama_models": [model], "models_cpu_offload": [name]}))


@pytest.mark.parametrize(
    ("name", "fix"),
    [("gpt-oss:12b", "did you mean gpt-oss:20b?"), ("llama3", "docs/settings.md lists every key")],
)
def test_offload_of_another_model(name: str, fix: str, own_secrets: Path) -> None:
    hosts = pair({"ollama_models": ["gpt-oss:20b"], "models_cpu_offload": ["gpt-oss:20b", name]})
    line = f"models_cpu_offload: {name!r} is none of ollama_models; {fix}"
    assert_refused(hosts, "gpu1", [line], own_secrets)


def test_host_without_models_is_not_judged() -> None:
    """`models_cpu_offload` may be set for all hosts of an inventory, the gateway too."""
    fleet_of(pair(edge={"models_cpu_offload": ["none-of-its-own"]}))
