"""What tests of refused settings have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fleet.kit.errors import SettingsError
from tests.fleets import (
    EDGE,
    GPU,
    Hosts,
    fleet_of,
)


def pair(gpu: Mapping[str, Any] | None = None, edge: Mapping[str, Any] | None = None) -> Hosts:
    """A sound fleet of two, but for what is changed."""
    return {
        "gpu1": ("gpu", {**GPU[1], **(gpu or {})}),
        "edge": ("gateway", {**EDGE[1], **(edge or {})}),
    }


def without(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


def problems(hosts: Hosts) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        fleet_of(hosts)
    return refused.value.problems


def assert_refused(hosts: Hosts, host: str, parts: list[str], store: Path) -> None:
    """One mistake gives one line, with host, key, value and fix; no secret is made for it."""
    [line] = problems(hosts)
    assert line.startswith(f"{host}: ")
    assert [part for part in parts if part not in line] == [], line
    assert not store.exists()
