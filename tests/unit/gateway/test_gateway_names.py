"""The gateway's names of models and those of the fleet's Python are the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.gateway.names import plain
from tests.unit.gateway.judging import Judging, judging
from tests.unit.gateway.test_names import NAMES, NO_NAMES


@pytest.fixture(scope="module")
def names() -> Iterator[Judging]:
    with tempfile.TemporaryDirectory() as directory, judging(Path(directory)) as names:
        yield names


def test_names_and_what_is_none(names: Judging) -> None:
    texts = [*NAMES, *(text for text in NO_NAMES if "\n" not in text)]
    assert names.plain(texts) == [plain(text) for text in texts]


_PARTS = st.sampled_from(
    ["m", "M", "library", "Library", "registry.ollama.ai", "a.b", "_", "-", ".", "9", "x" * 80,
     "x" * 81, "h" * 350, "é", "latest", "", " ", "\0"]
)  # fmt: skip
_MARKS = st.sampled_from(["/", ":", "://", "", "@", "//"])
_TEXTS = st.one_of(
    st.text(st.sampled_from("aA1_-.:/@ é\u212a"), max_size=12),
    st.lists(st.tuples(_PARTS, _MARKS), min_size=1, max_size=6).map(
        lambda pairs: "".join(part + mark for part, mark in pairs)
    ),
    st.lists(_PARTS, min_size=1, max_size=4).map("/".join),
)


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(_TEXTS, min_size=30, max_size=60))
def test_the_two_are_equal(names: Judging, texts: list[str]) -> None:
    assert names.plain(texts) == [plain(text) for text in texts]
