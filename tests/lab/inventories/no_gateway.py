"""The lab's GPU hosts alone, with settings of a test's own, as in tests/lab/gpu.py."""

import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[1] / "gpu.py"))

gpu = _lab["gpu"]
all = _lab["all"]  # noqa: A001 - pyinfra's name for the data of every host
