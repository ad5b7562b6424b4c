"""The lab's inventory, with settings of a test's own for its GPU hosts.

LAB_SETTINGS holds them, as JSON: an object of keys and values. A host's name is a key for an object
of its own.
"""

import json
import os
import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[2] / "inventory" / "lab.py"))
_settings = json.loads(os.environ.get("LAB_SETTINGS", "{}"))

_hosts = [(name, {**data, **_settings.pop(name, {})}) for name, data in _lab["gpu"][0]]
gpu = (_hosts, {**_lab["gpu"][1], **_settings})
gateway = _lab["gateway"]
all = _lab["all"]  # noqa: A001 - pyinfra's name for the data of every host
