"""What comes from outside is of the form that it must have, or refused with what is wrong."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from outside import FormError, counted, judged, parsed, read_all

FORM = {
    "name": str, "size": int, "rate?": float, "on?": bool, "tags?": [re.compile("[a-z]+")],
    "of?": (None, range(1, 9)), "more?": {...: [int]},
}  # fmt: skip


@pytest.mark.parametrize(
    "more",
    [
        {}, {"rate": 0.5}, {"rate": -1}, {"rate": None}, {"on": True}, {"tags": []},
        {"tags": ["a", "b"]}, {"of": 8}, {"more": {"x": [1], "y": []}}, {"unknown": [{}]},
    ],
    ids=str,
)  # fmt: skip
def test_of_the_form(more: dict[str, Any]) -> None:
    value = {"name": "x", "size": 0, **more}
    assert judged(value, FORM) is value


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"name": 7}, "it.name is 7, and no text"),
        ({"name": "\ud800"}, "it.name is '\\ud800', and no text"),
        ({"size": -1}, "it.size is -1, and no whole number from 0 on"),
        ({"size": True}, "it.size is True"),
        ({"size": 1.0}, "it.size is 1.0"),
        ({"size": 2**63}, "it.size is 9223372036854775808"),
        ({"rate": float("inf")}, "it.rate is inf, and no number"),
        ({"on": 1}, "it.on is 1, and no truth value"),
        ({"tags": "a"}, "it.tags is 'a', and no list"),
        ({"tags": ["a", "a\n"]}, "it.tags[1] is 'a\\n', and no text like [a-z]+"),
        ({"of": 9}, "it.of is 9, and no number from 1 to 8"),
        ({"more": {"x": 1}}, "it.more.x is 1, and no list"),
        ({"more": {"\ud800": []}}, "it.more is '\\ud800', and no text"),
    ],
    ids=str,
)
def test_of_another(more: dict[str, Any], wrong: str) -> None:
    with pytest.raises(FormError, match=f"^{re.escape(wrong)}"):
        judged({"name": "x", "size": 0, **more}, FORM)


def test_missing_is_named() -> None:
    with pytest.raises(FormError, match=r"^/api/ps has no size$"):
        parsed('{"name": "x"}', FORM, "/api/ps")


@pytest.mark.parametrize(
    "text", ["", "{", "nan", '{"size": 1e', "[" * 100_000, "9" * 5_000, b"\xff"]
)
def test_no_json(text: bytes | str) -> None:
    with pytest.raises(FormError, match="it is"):
        parsed(text, [])


def test_large_ones_are_not_shown_whole() -> None:
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    for value in ("x" * 1_000_000, list(range(1_000_000)), deep):
        with pytest.raises(FormError) as caught:
            judged(value, int)
        assert len(str(caught.value)) < 200


class TestSize:
    def test_to_the_last_byte(self) -> None:
        assert read_all(io.BytesIO(b"12345"), 5) == b"12345"
        with pytest.raises(FormError, match="more than 4 bytes"):
            read_all(io.BytesIO(b"12345"), 4)

    def test_trickle(self) -> None:
        class Trickle:
            def read(self, size: int) -> bytes:
                return b"x"

        with pytest.raises(FormError, match=r"more than|has not ended"):
            read_all(Trickle(), 10_000_000, 0.05)


@pytest.mark.parametrize("text", ["", "-1", "1e9", "1.5", "٣", "9" * 5_000, "5 5", "[N/A]"])
def test_text_that_is_no_number(text: str) -> None:
    assert counted(text) is None


def test_number_of_a_command() -> None:
    assert (counted("0"), counted(" 81559\n")) == (0, 81_559)
