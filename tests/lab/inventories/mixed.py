"""Two GPU hosts with different models behind a gateway that knows a model by another name, too.

MODELS changes what they have, by host in JSON, and GATEWAY the gateway's settings.
"""

import json
import os
import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[3] / "inventory" / "lab.py"))
# The lab's stand-in for a model of 65 GB is a small one.
_large = {"name": "gpt-oss:120b", "memory": 1}
_models = {"gpu1": ["gpt-oss:20b"], "gpu2": [_large]} | json.loads(os.environ.get("MODELS", "{}"))

gpu = (
    [(name, {**own, "ollama_models": _models[name]}) for name, own in _lab["gpu"][0]],
    _lab["gpu"][1],
)
gateway = (
    _lab["gateway"][0],
    {
        "gateway_tls": "off",
        "gateway_keys": [
            "plain",
            {"name": "small", "models": ["gpt-oss:20b"]},
            {"name": "renamed", "models": ["gpt-4o"]},
            {"name": "quota", "tokens": "30/mo"},
            {"name": "strict", "overrides": "refuse"},
            {"name": "tuner", "overrides": "allow"},
        ],
        "gateway_aliases": {"gpt-4o": "gpt-oss:120b"},
        **json.loads(os.environ.get("GATEWAY", "{}")),
    },
)
all = _lab["all"]  # noqa: A001 - pyinfra's name for the data of every host
