"""The lab after its deploy, seen from where gpu2 and the gateway's name cannot be reached."""

import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).parents[3] / "inventory" / "lab.py"))
# Of a network that is reserved for documentation: nobody answers there.
_NOWHERE = "198.51.100.1"

gpu = (
    [
        (name, {**data, **({"ssh_hostname": _NOWHERE} if name == "gpu2" else {})})
        for name, data in _lab["gpu"][0]
    ],
    _lab["gpu"][1],
)
gateway = (_lab["gateway"][0], {**_lab["gateway"][1], "gateway_names": ["llm.example.invalid"]})
all = (  # noqa: A001 - pyinfra's name for the data of every host
    _lab["all"][0],
    {**_lab["all"][1], "ssh_connect_retries": 0},
)
