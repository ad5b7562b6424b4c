"""The lab with the GPU hosts that GPUS names, and settings of theirs changed by JSON in OLLAMA."""

import json
import os
import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[3] / "inventory" / "lab.py"))
_names = os.environ["GPUS"].split()
_hosts = [host for host in _lab["gpu"][0] if host[0] in _names]

gpu = (_hosts, {**_lab["gpu"][1], **json.loads(os.environ.get("OLLAMA", "{}"))})
gateway = _lab["gateway"]
all = (  # noqa: A001 - pyinfra's name for the data of every host
    [name for name, _ in _hosts + gateway[0]],
    _lab["all"][1],
)
