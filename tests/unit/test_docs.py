"""docs/settings.md is what the settings say."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from operator import add
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fleet import docs
from fleet.capabilities import CAPABILITIES
from fleet.declare.types import Duration, HttpUrl, Network, Port, Words


def items_in(hint: Any) -> Iterator[tuple[str, type[BaseModel]]]:
    """The tables in a type, and how a key goes on to the keys of one."""
    for argument in get_args(hint):
        end = "[]" if get_origin(hint) is tuple else ""
        yield from ((f"{end}{inner}", item) for inner, item in items_in(argument))
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield "", hint


def keys_of(
    model: type[BaseModel], key_of: Callable[[str], str]
) -> Iterator[tuple[str, FieldInfo]]:
    """Key to field in the page's order: each table after the one that its setting is in."""
    hints = get_type_hints(model, include_extras=True)
    yield from ((key_of(name), field) for name, field in model.model_fields.items())
    for name in model.model_fields:
        for inner, item in items_in(hints[name]):
            yield from keys_of(item, partial(add, f"{key_of(name)}{inner}."))


KEYS = {
    key: field for item in CAPABILITIES for key, field in keys_of(item.settings, item.settings.key)
}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "docs" / "settings.md"
    shutil.copytree(docs.INDEX.parent, path.parent)
    path.unlink()
    monkeypatch.setattr(docs, "PATH", path)
    monkeypatch.setattr(docs, "INDEX", path.parent / docs.INDEX.name)
    monkeypatch.setattr(docs, "PRODUCT_ROOT", tmp_path)
    return path


def rows() -> dict[str, list[str]]:
    """Key to its cells, as a reader of the table splits them."""
    found = {}
    for line in docs.PATH.read_text().splitlines():
        if re.match(r"\| `[a-z0-9_.\[\]]+`( ⚠)? \|", line):
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found[cells[0].split("`")[1]] = cells
    return found


def test_page_is_not_stale() -> None:
    assert docs.main(["--check"]) == 0


def test_page_lists_every_key_once_in_five_cells() -> None:
    assert list(rows()) == list(KEYS)
    assert {len(cells) for cells in rows().values()} == {5}


@pytest.mark.parametrize("key", KEYS)
def test_setting_says_what_it_means(key: str) -> None:
    description = KEYS[key].description or ""
    assert re.match(r"[A-Z].{10,}\.$", description), description
    assert description in rows()[key][4]


def exposing() -> set[str]:
    return {key for key, field in KEYS.items() if "exposes" in (field.json_schema_extra or ())}


def test_exposing_settings_carry_their_warning() -> None:
    marked = {key for key, cells in rows().items() if "⚠" in cells[0]}
    warned = {key for key, cells in rows().items() if "⚠ **Exposing:** " in cells[4]}
    assert marked == warned == exposing()


def test_setting_that_lets_other_hosts_in_is_exposing() -> None:
    """The rest of what can open something is in the tests of each capability's settings."""
    opening = {
        key for key, field in KEYS.items() if {"private", "any"} & {*get_args(field.annotation)}
    }
    assert opening
    assert opening <= exposing()


@pytest.mark.parametrize("key", KEYS)
def test_type_is_said_in_words(key: str) -> None:
    """No Python type names; the words of `None` and the booleans are what one writes."""
    words = re.sub(r"`[^`]*`", "", rows()[key][1])
    assert not re.search(r"[\[\]{}|<>]|str|int\b|tuple|Optional|None", words), words


def test_every_duration_is_called_one() -> None:
    """A new kind of duration would be told as text."""
    durations = {
        key
        for key, field in KEYS.items()
        if re.fullmatch(r"\d+[smh]", str(field.default))
        # What has no default of its own is called as its setting is.
        or re.search(r"_(timeout|alive)$", key)
    }
    assert {key for key, cells in rows().items() if cells[1].startswith("duration")} == durations
    assert durations


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Port, "port"),
        (tuple[Port, ...], "list of ports"),
        (Port | None, "port or `None`"),
        (Literal["a", "b"], 'one of `"a"`, `"b"`'),
        (tuple[HttpUrl, ...], "list of http(s) addresses"),
        (dict[Port, Duration], "port to duration"),
        (Annotated[Network, Words("IPv4 network")], "IPv4 network"),
    ],
)
def test_words(hint: object, words: str) -> None:
    assert docs.describe_type(hint) == words


def test_type_without_words_is_an_error() -> None:
    with pytest.raises(TypeError, match="no words for"):
        docs.describe_type(complex)
    with pytest.raises(TypeError, match="no words for"):
        docs.describe_type(frozenset[int])


def test_check_reports_a_missing_page(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/settings.md is missing; run `make docs` and commit it\n"
    assert not page.exists()


def test_check_reports_a_stale_page(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    page.write_text(page.read_text().replace("`11434`", "`11435`"))
    assert docs.main(["--check"]) == 1
    assert (
        "docs/settings.md is stale, a settings.py in fleet/ has changed" in capsys.readouterr().err
    )


@pytest.mark.parametrize(("name", "heading"), [("abacus", "topic"), ("ollama", "page")])
def test_a_page_is_in_the_index_by_its_first_line(
    page: Path, capsys: pytest.CaptureFixture[str], name: str, heading: str
) -> None:
    """... a capability's in the first table, and what an operator does in the second."""
    assert docs.main([]) == 0
    (page.parent / "operating" / f"{name}.md").write_text(
        f"# {name}\n\n> Counting by hand.\n\nText.\n"
    )
    assert docs.main(["--check"]) == 1
    assert "docs/operating.md is stale, a page in docs/operating/" in capsys.readouterr().err
    assert docs.main([]) == 0
    rows = docs.INDEX.read_text().splitlines()
    row = rows.index(f"| [{name}](operating/{name}.md) | Counting by hand. |")
    above = [line for line in rows[:row] if line.endswith("| answers |")]
    assert above[-1] == f"| {heading} | answers |"
    assert rows[-1].startswith("[Looks like a failure"), "what follows the tables stays"
