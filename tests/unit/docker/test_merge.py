"""daemon.json has two owners, and each keeps what is its own."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.docker.merge import leaves, merge

THEIRS = {"bip": "10.9.0.1/24", "log-opts": {"labels": "team"}, "runtimes": {"runsc": {}}}
OURS = {"live-restore": True, "log-opts": {"max-size": "10m"}, "features": {"cdi": True}}


def owned(declared: dict[str, Any]) -> list[tuple[str, ...]]:
    return [path for path, _ in leaves(declared)]


def test_foreign_keys_stay_beside_ours() -> None:
    assert merge(THEIRS, [], OURS) == {
        "bip": "10.9.0.1/24",
        "log-opts": {"labels": "team", "max-size": "10m"},
        "runtimes": {"runsc": {}},
        "live-restore": True,
        "features": {"cdi": True},
    }


def test_again_changes_nothing() -> None:
    once = merge(THEIRS, [], OURS)
    assert merge(once, owned(OURS), OURS) == once


def test_what_is_declared_no_more_goes_with_the_object_it_made() -> None:
    assert merge(merge(THEIRS, [], OURS), owned(OURS), {}) == THEIRS


def test_declared_value_wins() -> None:
    assert merge({"live-restore": False}, [], OURS)["live-restore"] is True
    assert merge({"features": None}, [], OURS)["features"] == {"cdi": True}


def test_foreign_key_of_a_former_name_of_ours_is_left() -> None:
    """Not recorded, not ours: an operator may have written what we once could have."""
    assert merge({"data-root": "/srv"}, owned(OURS), OURS)["data-root"] == "/srv"


def test_list_is_one_value() -> None:
    declared = {"registry-mirrors": ["https://b"]}
    assert merge({"registry-mirrors": ["https://a"]}, [], declared) == declared


def test_owned_path_that_somebody_removed_or_changed_its_kind() -> None:
    for current in ({}, {"log-opts": "text"}, {"log-opts": {}}):
        merged = merge(current, [("log-opts", "max-size")], {})
        assert "max-size" not in str(merged)


def test_arguments_are_not_altered() -> None:
    current = {"log-opts": {"labels": "team"}}
    merge(current, [("log-opts", "labels")], OURS)
    assert current == {"log-opts": {"labels": "team"}}


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ({}, []),
        ({"a": {}}, [("a",)]),
        ({"a": {"b": {"c": 1}}, "d": [1]}, [("a", "b", "c"), ("d",)]),
    ],
)
def test_leaves(value: dict[str, Any], paths: list[tuple[str, ...]]) -> None:
    assert [path for path, _ in leaves(value)] == paths
