"""The note on a host is read as what a deploy writes, or said to be spoilt."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet.gpu import facts
from fleet.gpu.facts import GpuNote, GpuNoteFact, SeenGpu
from fleet.gpu.files import note
from tests.unit.facts import ask

GPUS = (
    SeenGpu("0000:17:00.0", "GPU-5a3f1c00-0000-4000-8000-000000000000"),
    SeenGpu("0000:18:00.0"),
)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "gpus.json"
    monkeypatch.setattr(facts, "GPU_NOTE", str(path))
    return path


def read(path: Path) -> GpuNote:
    trace = path.with_name("trace")
    trace.touch()
    found: GpuNote = ask(GpuNoteFact(), traces=[str(trace), str(path.with_name("none"))])
    assert found.traces == (str(trace),)
    return found


@pytest.mark.parametrize("gpus", [GPUS, ()])
def test_what_was_written_is_read(path: Path, gpus: tuple[SeenGpu, ...]) -> None:
    path.write_text(note(gpus).text)
    found = read(path)
    assert (found.seen, found.spoilt) == (gpus, "")


def test_no_note(path: Path) -> None:
    found = read(path)
    assert (found.seen, found.spoilt) == (None, "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON"),
        ('{"gpus": 8}', "it.gpus is 8, and no list"),
        ('{"gpus": [{"address": "; reboot"}]}', "it.gpus[0].address"),
        ('{"gpus": [{"address": "0000:17:00.0", "uuid": 5}]}', "it.gpus[0].uuid"),
        ("x" * 100_000, "more than 65536 bytes"),
    ],
)
def test_spoilt(path: Path, text: str, words: str) -> None:
    path.write_text(text)
    found = read(path)
    assert found.seen is None
    assert words in found.spoilt


def test_link_to_nowhere_is_no_host_without_a_note(path: Path) -> None:
    path.symlink_to("/nonexistent")
    assert read(path).spoilt


def test_directory_in_its_place(path: Path) -> None:
    os.mkdir(path)  # noqa: PTH102 - what the fixture returns is not there
    assert read(path).spoilt
