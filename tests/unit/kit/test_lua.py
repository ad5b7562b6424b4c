"""Values as Lua reads them again."""

from __future__ import annotations

import pytest

from fleet.kit.lua import literal


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", '"a"'),
        ('"]]\\\n', '"\\034]]\\092\\010"'),
        ("é", '"\\195\\169"'),
        (True, "true"),
        (10**15, "1000000000000000"),
        (("a", 1), '{ "a", 1 }'),
        ({"end": {"x": None, "y": []}}, '{ ["end"] = { ["y"] = {  } } }'),
    ],
)
def test_literal(value: object, text: str) -> None:
    assert literal(value) == text


def test_nothing_is_guessed() -> None:
    with pytest.raises(TypeError, match="float"):
        literal({"a": 0.5})
