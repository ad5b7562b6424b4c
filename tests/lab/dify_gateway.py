"""The lab with Dify on a host of its own, answered through the fleet's gateway over TLS."""

import os
import runpy
from pathlib import Path

_here = Path(__file__).resolve()
_lab = runpy.run_path(str(_here.parents[2] / "inventory" / "lab.py"))
os.environ["DIFY_HOST"] = "dify1"
[(_name, _data)] = runpy.run_path(str(_here.parent / "dify_fleet.py"))["dify"]

gpu = _lab["gpu"]
gateway = (
    _lab["gateway"][0],
    {"gateway_keys": [{"name": "dify", "overrides": "allow"}], "gateway_tls": "private-ca"},
)
dify = [
    (
        _name,
        {
            **{
                key: value
                for key, value in _data.items()
                if not key.startswith(("ollama_", "models_", "driver_", "gpu_"))
            },
            "dify_ollama": "gateway",
            "dify_listen": "private",
            "dify_allow_from": [f"{_lab['_lab']['controller']['address']}/32"],
        },
    )
]
all = ([*_lab["all"][0], _name], _lab["all"][1])  # noqa: A001 - pyinfra's name
