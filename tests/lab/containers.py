"""The lab's first host with Docker alone, and whatever LAB_SETTINGS (JSON) declares for it."""

import json
import os
from pathlib import Path

_lab = json.loads(
    (
        Path(__file__).resolve().parents[2]
        / ".lab"
        / os.environ.get("LLM_FLEET_LAB_ID", "")
        / "lab.json"
    ).read_text()
)
_url = _lab["upstream"]["url"]

containers = (
    [("gpu1", {"ssh_hostname": _lab["hosts"]["gpu1"]["address"]})],
    {
        "ssh_user": "root",
        "ssh_key": _lab["ssh_key"],
        "ssh_known_hosts_file": _lab["known_hosts"],
        "ssh_strict_host_key_checking": "yes",
        "docker_enabled": True,
        "docker_source": "distribution",
        "toolkit_repository_url": f"{_url}/libnvidia-container",
        "toolkit_repository_fingerprint": _lab["upstream"]["toolkit_fingerprint"],
        **json.loads(os.environ.get("LAB_SETTINGS", "{}")),
    },
)
