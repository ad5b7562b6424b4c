"""The lab with Open WebUI on a host of its own, which asks the fleet's gateway over TLS.

WEBUI (JSON) declares it further.
"""

import json
import os
import runpy
from pathlib import Path

_lab = runpy.run_path(str(Path(__file__).resolve().parents[2] / "inventory" / "lab.py"))
_state = _lab["_lab"]
_registry = _state["upstream"]["registry"].removeprefix("http://")
_address = _state["hosts"]["dify1"]["address"]
_image = "open-webui/open-webui:v0.9.6"

gpu = _lab["gpu"]
gateway = (_lab["gateway"][0], {"gateway_keys": ["webui"], "gateway_tls": "private-ca"})
webui = [
    (
        "dify1",
        {
            "ssh_hostname": _address,
            "private_address": _address,
            "docker_source": "distribution",
            "docker_insecure_registries": [_registry],
            "webui_image": f"{_registry}/{_image}@{_state['upstream']['images'][_image]}",
            "webui_listen": "private",
            "webui_allow_from": [f"{_state['controller']['address']}/32"],
            "webui_admin_email": "admin@fleet.internal",
            **json.loads(os.environ.get("WEBUI", "{}")),
        },
    )
]
all = ([*_lab["all"][0], "dify1"], _lab["all"][1])  # noqa: A001 - pyinfra's name
