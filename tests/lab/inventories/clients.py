"""One lab host that is GPU host and gateway, with a key as a client of it has one.

A second model makes embeddings, where CLIENTS gives its file's checksum.
"""

import os
import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[3] / "inventory" / "lab.py"))
_sha256 = os.environ.get("CLIENTS", "")
_pooled = {"name": "pooled", "gguf": "/srv/pooled.gguf", "sha256": _sha256}

gpu = (
    _lab["gpu"][0],
    {**_lab["gpu"][1], "ollama_models": ["gpt-oss:20b", *([_pooled] if _sha256 else [])]},
)
gateway = (_lab["gateway"][0], {"gateway_keys": ["clients"], "gateway_tls": "private-ca"})
all = _lab["all"]  # noqa: A001 - pyinfra's name for the data of every host
