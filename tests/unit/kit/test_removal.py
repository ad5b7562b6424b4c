"""What is taken back of a host, by its real programs; whole hosts are in tests/lab."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pyinfra.context import ctx_host

from fleet.kit.facts.traces import Traces
from fleet.kit.footprint import Part, Trace, folders
from fleet.kit.removal import take_back


def _get_fact(_: type[Traces], parts: list[str]) -> dict[int, list[str]]:
    command = Traces().command(parts=parts).get_raw_value()
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    return Traces().process(said.stdout.splitlines())


def _taken_back(trace: Trace) -> None:
    here: Any = SimpleNamespace(get_fact=_get_fact, noop=print)
    with ctx_host.use(here):
        for command in take_back._inner(groups=[[trace]]):
            subprocess.run(["sh", "-c", command.get_raw_value()], check=True)


def test_folders_in_folders_go_together(tmp_path: Path) -> None:
    """One that a killed removal has emptied, and what it is in, which that leaves empty."""
    outer = tmp_path / "llm-fleet"
    inner = outer / "models"
    inner.mkdir(parents=True)
    _taken_back(Trace("", "", folders(str(outer), str(inner))))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_of_others_in_it_stays(tmp_path: Path) -> None:
    outer = tmp_path / "llm-fleet"
    inner = outer / "models"
    inner.mkdir(parents=True)
    (outer / "theirs").touch()
    (inner / "ours").touch()
    parts = (Part("file", str(inner / "ours")), *folders(str(outer), str(inner)))
    _taken_back(Trace("", "", parts))
    assert [path.name for path in outer.iterdir()] == ["theirs"]


def test_a_folder_goes_with_what_was_in_it_whatever_a_removal_before_has_taken(
    tmp_path: Path,
) -> None:
    """The models' own, when all else of the project is gone: nothing else tells that it is ours."""
    gone, (home, models) = tmp_path / "llm-fleet", (tmp_path / "home", tmp_path / "home" / "models")
    (models / "blobs").mkdir(parents=True)
    told = tuple(Part("folder", str(path), str(gone)) for path in (models, home))
    _taken_back(Trace("", "", told))
    assert models.is_dir(), "nothing tells that they are ours"
    _taken_back(Trace("", "", (Part("tree", str(models / "blobs")), *told)))
    assert list(tmp_path.iterdir()) == []
