"""Places of a text are changed, whatever the parts that it comes in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.gateway.judging import Judging, judging

Edit = tuple[int, int, str]


@pytest.fixture(scope="module")
def editor() -> Iterator[Judging]:
    with tempfile.TemporaryDirectory() as directory, judging(Path(directory)) as editor:
        yield editor


@st.composite
def _texts_and_edits(draw: st.DrawFn) -> tuple[bytes, list[Edit]]:
    """A text, and places in it that do not meet."""
    text = draw(st.binary(max_size=60))
    marks = draw(st.lists(st.integers(1, max(1, len(text))), max_size=12).map(sorted))
    edits: list[Edit] = []
    end = 0
    for mark in marks:
        from_ = max(mark, end + 1)
        to = draw(st.integers(from_ - 1, from_ + 6))
        if from_ > len(text) or to > len(text):
            break
        if edits and to == from_ - 1 and edits[-1][:2] == (from_, to):
            continue
        edits.append((from_, to, draw(st.sampled_from(["", "", "x", '"model":"m",']))))
        end = max(end, to)
    return text, draw(st.permutations(edits))


@settings(max_examples=400, deadline=None)
@given(given=_texts_and_edits(), size=st.integers(1, 70))
@example(given=(b"abcdef", [(3, 2, "X"), (3, 4, "")]), size=2)
@example(given=(b"abcdef", [(1, 6, "")]), size=1)
@example(given=(b"abcdef", [(6, 6, "Y"), (1, 0, "Z")]), size=3)
def test_all_but_the_places_is_as_it_was(
    editor: Judging, given: tuple[bytes, list[Edit]], size: int
) -> None:
    text, edits = given
    made, pauses = editor.edit(text, edits, size)
    assert made == _edited(text, edits)
    assert pauses == -(-len(text) // size) // 4, "one after four parts"


def _edited(text: bytes, edits: list[Edit]) -> bytes:
    """The same in the plainest way: from the end on, whatever comes before stays where it is."""
    for from_, to, new in sorted(edits, reverse=True):
        text = text[: from_ - 1] + new.encode() + text[to:]
    return text


@pytest.mark.parametrize(
    ("edits", "said"),
    [([(2, 4, ""), (4, 5, "")], "two edits meet"), ([(9, 9, "")], "behind the end")],
)
def test_edits_that_cannot_be_made_are_a_mistake(
    editor: Judging, edits: list[Edit], said: str
) -> None:
    """... of this program, and no text comes out of them."""
    with pytest.raises(AssertionError, match=said):
        editor.edit(b"abcdef", edits, 3)
