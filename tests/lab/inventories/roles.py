"""Hosts of the lab in the groups that the JSON in ROLES says: name to groups, with spaces."""

import json
import os
import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[3] / "inventory" / "lab.py"))
_hosts = {name: (name, data) for name, data in _lab["gpu"][0] + _lab["gateway"][0]}
_roles = {name: set(groups.split()) for name, groups in json.loads(os.environ["ROLES"]).items()}


def _in(group):
    return [_hosts[name] for name, groups in _roles.items() if group in groups]


# Of a host that the lab has as a gateway, nobody says how many GPUs it has.
gpu = (_in("gpu"), {"gpu_count": 0, **_lab["gpu"][1]})
gateway = (
    _in("gateway"),
    {
        "gateway_keys": ["lab"],
        "gateway_tls": "private-ca",
        "gateway_metrics": "private",
        "gateway_metrics_from": ["203.0.113.0/24"],
    },
)
all = (list(_roles), _lab["all"][1])  # noqa: A001 - pyinfra's name
