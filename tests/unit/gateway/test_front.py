"""A gateway as a run changes it. Real ones are in tests/lab."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import fleet.gateway.front as module
from fleet.gateway.paths import GATEWAY_DIR


def test_what_was_found_in_a_files_place_is_not_in_the_way_of_a_check(tmp_path: Path) -> None:
    stage, there, programs = (tmp_path / name for name in ("stage", "there", "programs"))
    for folder in (stage, there / "served.found.abcdef", programs):
        folder.mkdir(parents=True)
    (stage / "nginx.conf").write_text("new")
    for name in ("nginx.conf", "keys.conf"):
        (there / name).write_text("old")
    nginx = programs / "nginx"
    nginx.write_text("#!/bin/sh\nexit 0\n")
    nginx.chmod(0o755)
    line = module._CHECK.get_raw_value().replace(str(GATEWAY_DIR), str(there))
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", line], cwd=stage, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {item.name: item.read_text() for item in stage.iterdir()} == {
        "nginx.conf": "new",
        "keys.conf": "old",
    }
