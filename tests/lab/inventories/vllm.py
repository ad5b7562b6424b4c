"""Two hosts with vLLM alone behind a gateway, from locked packages; nothing has a GPU.

LOCK is their lock, SERVER changes the server of both, in JSON.
"""

import json
import os
import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[3] / "inventory" / "lab.py"))
_server = {
    "name": "tiny",
    "weights": "/srv/weights/tiny",
    "served_names": ["gpt-oss:20b", "openai/gpt-oss-20b"],
    "port": 8000,
    "gpus": [],
    "max_sequences": 4,
    "max_queued": 4,
    "env": {"LAB_VLLM_TOKENS_PER_SECOND": "50", "LAB_VLLM_READY_AFTER": "3"},
} | json.loads(os.environ.get("SERVER", "{}"))

vllm = (
    _lab["gpu"][0],
    {
        "vllm_runtime": "venv",
        "vllm_lock": os.environ["LOCK"],
        # Of the host's own: an index of a company is as little known to pip by its certificate.
        "vllm_index_url": "http://127.0.0.1:9000/simple",
        "vllm_listen": "private",
        "vllm_start_timeout": "2m",
        "vllm_shutdown_timeout": "5s",
        "vllm_watch_every": "5s",
        "vllm_watch_timeout": "15s",
        "vllm_servers": [_server],
    },
)
gateway = _lab["gateway"]
all = _lab["all"]  # noqa: A001 - pyinfra's name for the data of every host
