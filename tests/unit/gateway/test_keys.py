"""The declared keys as nginx's tables."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from fleet.gateway.keys import at_or_after, key_entries, key_tables
from fleet.gateway.settings import GatewayKey
from fleet.kit.secrets import Previous

END = datetime(2027, 1, 31, 11, tzinfo=UTC)
EPOCH = int(END.timestamp())


@pytest.mark.parametrize("epoch", [EPOCH, 1_999_999_999, 2_000_000_000, 1_763_698_401, 10])
def test_pattern_is_a_comparison(epoch: int) -> None:
    """Around the moment and far from it, the pattern says what >= says."""
    pattern = re.compile(at_or_after(epoch))
    for distance in (0, 1, 9, 10, 99, 12345, 10**6, 10**9 - 1):
        for moment in {epoch - distance, epoch + distance}:
            if 0 <= moment < 10**10:
                assert bool(pattern.match(f"{moment:010d}.500")) == (moment >= epoch), moment


def test_names_are_all_that_the_tables_hold() -> None:
    keys = [
        GatewayKey(name="a"),
        GatewayKey(name="b", role="admin", expires="2027-01-31"),
        GatewayKey(name="c", rate="90/m", concurrent=2),
        GatewayKey(name="d", rate="90/m", burst=7),
        GatewayKey(name="e", rate="90/m", overrides=True),
    ]
    tables = key_tables(keys, {})
    assert tables.admins == ("b",)
    assert tables.overriding == ("b", "e")
    assert [(limit.zone, limit.rate, limit.burst, limit.names) for limit in tables.limits] == [
        ("rate_90m_7", "90r/m", 7, ("d",)),
        ("rate_90m_default", "90r/m", 2, ("c", "e")),
    ]
    assert {limit.retry_after for limit in tables.limits} == {1}
    assert [(item.at_once, item.names) for item in tables.concurrency] == [
        (2, ("c",)),
        (64, ("a", "b", "d", "e")),
    ]
    assert list(tables.ends) == [int(datetime(2027, 2, 1, tzinfo=UTC).timestamp())]


def test_value_before_a_rotation_ends_with_the_overlap_or_with_the_key() -> None:
    values = {"a": SecretStr("new")}
    before = {"a": Previous(SecretStr("old"), END + timedelta(days=1))}
    for key, end in (
        (GatewayKey(name="a"), EPOCH + 86400),
        (GatewayKey(name="a", expires=END), EPOCH),
    ):
        entries = key_entries([key], values, before)
        assert entries["old"] == f"a$ended_{end}"
        assert entries["new"] == (f"a$ended_{EPOCH}" if key.expires else "a")
        assert end in key_tables([key], before).ends


def test_interrupted_rotation_leaves_the_key_open() -> None:
    """Both files hold the same value then: it is the present one."""
    value = SecretStr("same")
    entries = key_entries([GatewayKey(name="a")], {"a": value}, {"a": Previous(value, END)})
    assert entries == {"same": "a"}
