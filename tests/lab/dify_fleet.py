"""Dify in the lab: dify1 with its own Ollama, as DIFY (JSON) declares it further.

DIFY_HOST names another host to be it, which then has nothing but Dify and Ollama.
"""

import json
import os
from pathlib import Path

_root = Path(__file__).resolve().parents[2]
_lab = json.loads(
    (_root / ".lab" / os.environ.get("LLM_FLEET_LAB_ID", "") / "lab.json").read_text()
)
_url = _lab["upstream"]["url"]
_dify = _lab["upstream"]["dify"]
_declared = json.loads(os.environ.get("DIFY", "{}"))
_version = _declared.get("dify_version", "1.16.1")
_plugin = _dify["plugins"]["1.0.0"]
_name = os.environ.get("DIFY_HOST", "dify1")
_address = _lab["hosts"][_name]["address"]

gpu = dify = [
    (
        _name,
        {
            "ssh_hostname": _address,
            "private_address": _address,
            "ssh_user": "root",
            "ssh_key": _lab["ssh_key"],
            "ssh_known_hosts_file": _lab["known_hosts"],
            "ssh_strict_host_key_checking": "yes",
            "ollama_listen": "private",
            "ollama_version": _lab["upstream"]["ollama_version"],
            "ollama_sha256": _lab["upstream"]["ollama_sha256"],
            "ollama_release_url": f"{_url}/ollama/ollama/releases/download",
            "models_registry": _url.removeprefix("http://"),
            "models_registry_insecure": True,
            "models_disk_reserve": 0.5,
            "driver_source": "none",
            "gpu_count": 0,
            "docker_source": "distribution",
            "docker_registry_mirrors": [_lab["upstream"]["registry"]],
            "docker_insecure_registries": [_lab["upstream"]["registry"].removeprefix("http://")],
            "dify_sha256": _dify["releases"][_version],
            "dify_release_url": f"{_url}/langgenius/dify/archive/refs/tags",
            "dify_images": _lab["upstream"]["images"],
            "dify_owner_email": "owner@fleet.internal",
            "dify_plugin_package": f"{_url}/{_plugin['path']}",
            "dify_plugin_sha256": _plugin["sha256"],
            **_declared,
        },
    )
]
