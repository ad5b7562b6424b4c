"""The lab, with a GPU host that is a second gateway."""

import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[3] / "inventory" / "lab.py"))

gpu = _lab["gpu"]
gateway = ([*_lab["gateway"][0], _lab["gpu"][0][1]], _lab["gateway"][1])
all = _lab["all"]  # noqa: A001 - pyinfra's name for the data of every host
