"""The lab with a gateway as it is in production, and a GPU host that nobody ever reaches."""

import json
import os
import runpy
from ipaddress import ip_address
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[3] / "inventory" / "lab.py"))
_address = str(ip_address(_lab["gateway"][0][0][1]["private_address"]) + 180)
_dead = ("dead1", {"ssh_hostname": _address, "private_address": _address})

gpu = ([*_lab["gpu"][0], _dead], _lab["gpu"][1])
gateway = (
    _lab["gateway"][0],
    {"gateway_keys": ["plain"], **json.loads(os.environ.get("GATEWAY", "{}"))},
)
all = ([*_lab["all"][0], "dead1"], _lab["all"][1])  # noqa: A001 - pyinfra's name
