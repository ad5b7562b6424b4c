"""The lab with a gateway as it is in production, changed by the JSON in GATEWAY."""

import json
import os
import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[3] / "inventory" / "lab.py"))

gpu = _lab["gpu"]
gateway = (
    _lab["gateway"][0],
    {
        "gateway_keys": [
            "plain",
            {"name": "strict", "overrides": "refuse"},
            {"name": "ops", "role": "admin"},
            {"name": "tuner", "overrides": "allow"},
            {"name": "slow", "rate": "30/m", "burst": 2},
            {"name": "narrow", "concurrent": 1},
            {"name": "elsewhere", "allow_from": ["203.0.113.0/24"]},
            {"name": "past", "expires": "2020-01-01"},
        ],
        "gateway_cors_origins": ["https://chat.example.com"],
        "gateway_http_port": 80,
        "gateway_metrics": "private",
        "gateway_metrics_from": ["203.0.113.0/24"],
        **json.loads(os.environ.get("GATEWAY", "{}")),
    },
)
all = _lab["all"]  # noqa: A001 - pyinfra's name for the data of every host
