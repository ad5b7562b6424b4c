"""The lab on this machine, as `lab up` left it.

LAB_USER=ops goes through sudo instead of root; LLM_FLEET_LAB_ID names another lab than this
checkout's own.
"""

import json
import os
from pathlib import Path

_state = (
    Path(__file__).resolve().parent.parent
    / ".lab"
    / os.environ.get("LLM_FLEET_LAB_ID", "")
    / "lab.json"
)
if not _state.exists():
    raise SystemExit("There is no lab: run `make lab`, or `.venv/bin/lab up` as root.")
_lab = json.loads(_state.read_text())
_user = os.environ.get("LAB_USER", "root")


def _group(name):
    return [
        (
            host,
            {
                "ssh_hostname": values["address"],
                "private_address": values["address"],
                # As `lab gpu` left it.
                **({"gpu_count": values["gpus"]} if name == "gpu" else {}),
            },
        )
        for host, values in _lab["hosts"].items()
        if name in values["groups"]
    ]


gpu = (
    _group("gpu"),
    {
        "ollama_listen": "private",
        "ollama_version": _lab["upstream"]["ollama_version"],
        "ollama_sha256": _lab["upstream"]["ollama_sha256"],
        "ollama_release_url": f"{_lab['upstream']['url']}/ollama/ollama/releases/download",
        "ollama_models": ["gpt-oss:20b"],
        "models_disk_reserve": 0.5,
        "models_registry": _lab["upstream"]["url"].removeprefix("http://"),
        "models_registry_insecure": True,
        "driver_repository_url": f"{_lab['upstream']['url']}/compute/cuda/repos",
        "driver_repository_fingerprint": _lab["upstream"]["driver_fingerprint"],
        "toolkit_repository_url": f"{_lab['upstream']['url']}/libnvidia-container",
        "toolkit_repository_fingerprint": _lab["upstream"]["toolkit_fingerprint"],
    },
)
gateway = (
    _group("gateway"),
    {
        "gateway_keys": ["lab"],
        # Declared: nothing leaves this machine, and clients need no authority.
        "gateway_tls": "off",
    },
)
all = (  # noqa: A001 - pyinfra's name for the data of every host
    list(dict.fromkeys(host for host, _ in gpu[0] + gateway[0])),
    {
        "ssh_user": _user,
        "ssh_key": _lab["ssh_key"],
        "ssh_known_hosts_file": _lab["known_hosts"],
        "ssh_strict_host_key_checking": "yes",
        **({} if _user == "root" else {"_sudo": True}),
    },
)
