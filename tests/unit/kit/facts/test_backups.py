"""The newest backup, of one capability among those of others."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fleet.kit.facts.backups import NewestBackup
from tests.unit.facts import ask


def test_newest_of_its_own(tmp_path: Path) -> None:
    now = time.time()
    for name, age in (("dify-1.tar", 9000), ("dify-2.tar", 600), ("webui-1.tar", 60), ("x", 1)):
        path = tmp_path / name
        path.touch()
        os.utime(path, (now - age, now - age))
    for prefix, age in (("dify", 600), ("webui", 60)):
        found = ask(NewestBackup(), directory=str(tmp_path), prefix=prefix)
        assert abs(found - age) < 30
    assert ask(NewestBackup(), directory=str(tmp_path), prefix="other") is None
    # Made while the clock was wrong.
    (tmp_path / "dify-3.tar").touch()
    os.utime(tmp_path / "dify-3.tar", (now + 9e8, now + 9e8))
    assert abs(ask(NewestBackup(), directory=str(tmp_path), prefix="dify") - 600) < 30
    assert ask(NewestBackup(), directory=str(tmp_path / "none"), prefix="dify") is None


def test_one_of_the_future_is_none(tmp_path: Path) -> None:
    """The clock was ahead, and is right again: no deploy takes it for the newest for years."""
    for name, age in (("dify-1.tar", 600), ("dify-2.tar", -90_000_000)):
        path = tmp_path / name
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    assert abs(ask(NewestBackup(), directory=str(tmp_path), prefix="dify") - 600) < 30
    (tmp_path / "dify-1.tar").unlink()
    assert ask(NewestBackup(), directory=str(tmp_path), prefix="dify") is None


def test_one_that_was_just_made(tmp_path: Path) -> None:
    (tmp_path / "dify-1.tar").touch()
    assert ask(NewestBackup(), directory=str(tmp_path), prefix="dify") is not None
