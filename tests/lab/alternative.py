"""The inventory of test_alternative.py: one host for everything, most settings changed."""

import json
import os
from pathlib import Path

_root = Path(__file__).resolve().parent.parent.parent
_lab = json.loads((_root / ".lab" / os.environ["LLM_FLEET_LAB_ID"] / "lab.json").read_text())

gpu = (
    list(_lab["hosts"]),
    {
        "gpu_count": 0,
        "ollama_port": 21434,
        # Loopback: the gateway is on the same host.
        "ollama_listen": "loopback",
        "ollama_models_dir": "/srv/weights/ollama",
        # The lab's are small, and a bare host has nothing yet to ask the registry with.
        "ollama_models": ["gpt-oss:20b", {"name": "gpt-oss:120b", "memory": 1.0}],
        "ollama_origins": ["https://chat.example.com"],
        "ollama_keep_alive": -1,
        "ollama_load_timeout": "20m",
        "ollama_context_length": 2048,
        "ollama_num_parallel": 2,
        "ollama_max_loaded_models": 2,
        "ollama_max_queue": 64,
        "ollama_flash_attention": True,
        "ollama_kv_cache_type": "q8_0",
        "ollama_sched_spread": True,
        "ollama_no_cloud": True,
        "ollama_debug": True,
        "ollama_env": {"OLLAMA_VULKAN": "0"},
        "ollama_version": "0.32.8",
        "ollama_sha256": os.environ["OLLAMA_SHA256"],
        "ollama_release_url": f"{_lab['upstream']['url']}/ollama/ollama/releases/download",
        "models_registry": _lab["upstream"]["url"].removeprefix("http://"),
        "models_registry_insecure": True,
        "models_disk_reserve": 0.2,
        "models_prune": True,
        "models_no_progress": "1m",
    },
)
gateway = (
    list(_lab["hosts"]),
    {
        "gateway_listen": "any",
        "gateway_port": 8080,
        "gateway_keys": ["first", "second"],
        "gateway_read_timeout": "20m",
        "gateway_max_body": 2,
    },
)
all = (  # noqa: A001 - pyinfra's name for the data of every host
    [
        (name, {"ssh_hostname": values["address"], "private_address": values["address"]})
        for name, values in _lab["hosts"].items()
    ],
    {
        "ssh_user": "ops",
        "_sudo": True,
        "ssh_key": _lab["ssh_key"],
        "ssh_known_hosts_file": _lab["known_hosts"],
        "ssh_strict_host_key_checking": "yes",
    },
)
