"""What a lock is, and what is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fleet.kit.errors import FleetError
from fleet.weights.lock import Lock, lock_text, read_lock, select

ROW = {"path": "a/b.bin", "size": 3, "sha256": "ab" * 32}


def lock(**values: Any) -> dict[str, Any]:
    return {
        "source": "huggingface", "repository": "openai/toy", "revision": "ab" * 20,
        "include": ["*"], "exclude": [], "files": [ROW], **values,
    }  # fmt: skip


def test_written_is_read_again(tmp_path: Path) -> None:
    made = Lock.model_validate(lock(files=[{**ROW, "path": "a/ü é.bin"}, {**ROW, "path": "b"}]))
    (tmp_path / "x.lock").write_text(lock_text(made))
    assert read_lock(tmp_path / "x.lock") == made
    assert made.bytes == 6


def test_a_file_is_a_line() -> None:
    made = Lock.model_validate(lock(files=[ROW, {**ROW, "path": "b"}]))
    [line] = [line for line in lock_text(made).splitlines() if '"b"' in line]
    assert json.loads(line) == {**ROW, "path": "b"}


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../x", "a//b", "a/", ".", "", "a\\b", "a\nb", "x\x00", "a" * 256,
     "a/./b", "\x1b[2J"],
)  # fmt: skip
def test_path_that_leads_elsewhere(path: str) -> None:
    with pytest.raises(ValidationError):
        Lock.model_validate(lock(files=[{**ROW, "path": path}]))


@given(st.text(max_size=30))
def test_no_path_leaves_the_folder(path: str) -> None:
    try:
        made = Lock.model_validate(lock(files=[{**ROW, "path": path}]))
    except ValidationError:
        return
    folder = Path("/srv/weights/x")
    assert (folder / made.files[0].path).resolve().is_relative_to(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"files": []}, "at least 1 item"),
        ({"files": [ROW, ROW]}, "in order, each once"),
        ({"files": [{**ROW, "path": "b"}, {**ROW, "path": "a"}]}, "in order, each once"),
        ({"include": ["*.json"]}, "those that its patterns match"),
        ({"exclude": ["a/*"]}, "those that its patterns match"),
        ({"files": [{**ROW, "path": "a"}, ROW]}, "a is a file and a folder"),
        ({"files": [{**ROW, "sha256": "ab"}]}, "files.0.sha256: .*not a SHA-256"),
        ({"files": [{**ROW, "size": -1}]}, "files.0.size"),
        ({"revision": "main"}, "revision: .*a commit"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_none(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / "x.lock").write_text(json.dumps(lock(**change)))
    with pytest.raises(FleetError, match=f"x.lock: no lock: .*{said}"):
        read_lock(tmp_path / "x.lock")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe"])
def test_no_json(tmp_path: Path, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "x.lock").write_bytes(content)
    with pytest.raises(FleetError, match=r"x.lock: no lock: "):
        read_lock(tmp_path / "x.lock")


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="No such file"):
        read_lock(tmp_path / "x.lock")


@pytest.mark.parametrize(
    ("include", "exclude", "chosen", "idle"),
    [
        (["*"], [], ["a/b/c.bin", "a/d.json", "e.json"], []),
        (["a/*"], [], ["a/b/c.bin", "a/d.json"], []),
        (["a/"], ["*.json"], ["a/b/c.bin"], []),
        (["*.json"], ["*/*"], ["e.json"], []),
        (["E.json", "*"], [], ["a/b/c.bin", "a/d.json", "e.json"], ["E.json"]),
        (["[a-d]/*.json"], ["x"], ["a/d.json"], ["x"]),
    ],
)
def test_patterns(
    include: list[str], exclude: list[str], chosen: list[str], idle: list[str]
) -> None:
    paths = ["e.json", "a/d.json", "a/b/c.bin"]
    assert select(paths, include, exclude) == (chosen, idle)
