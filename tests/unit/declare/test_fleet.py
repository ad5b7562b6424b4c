"""A host's settings are found by their class, and have its type: mypy reads this file too."""

from __future__ import annotations

import itertools
from typing import assert_type

import pytest

from fleet.capabilities import CAPABILITIES
from fleet.declare.capability import Capability
from fleet.declare.load import load_fleet
from fleet.declare.settings import Settings
from fleet.dify.settings import Dify
from fleet.gateway.settings import Gateway
from fleet.webui.settings import Webui
from tests.fleets import ALTERNATIVE, fleet_of, inventory_of


def test_settings_have_the_type_of_their_class() -> None:
    host = fleet_of(ALTERNATIVE)["edge"]
    assert_type(host[Gateway], Gateway)
    assert_type(host[Dify], Dify)
    assert assert_type(host[Gateway].port, int) == 8443
    assert assert_type(host[Webui].image, str | None) is None


def settings_of(capabilities: tuple[Capability, ...]) -> dict[str, list[Settings]]:
    """Host to its settings, in an order that is always the same."""
    fleet = load_fleet(inventory_of(ALTERNATIVE), capabilities)
    return {host.name: [host[item.settings] for item in CAPABILITIES] for host in fleet}


def test_order_of_the_list_is_not_that_of_the_settings() -> None:
    """No two entries are taken for each other when somebody moves one."""
    expected = settings_of(CAPABILITIES)
    for settings in expected.values():
        assert [type(item) for item in settings] == [item.settings for item in CAPABILITIES]
    for first, second in itertools.combinations(range(len(CAPABILITIES)), 2):
        exchanged = list(CAPABILITIES)
        exchanged[first], exchanged[second] = exchanged[second], exchanged[first]
        assert settings_of(tuple(exchanged)) == expected


def test_class_that_is_no_capability_has_no_settings() -> None:
    with pytest.raises(KeyError):
        fleet_of(ALTERNATIVE)["edge"][Settings]
