"""What is compared: the gateway as it is rendered, and a bare `proxy_pass`, an nginx each.

A proxy listens at a port of 127.0.0.1 and has all of its files in one folder.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyinfra.api.inventory import Inventory

from fleet.capabilities import CAPABILITIES
from fleet.declare.load import load_fleet
from fleet.gateway.declared import gateway_keys
from fleet.gateway.files import config_files
from fleet.gateway.paths import (
    GATEWAY_DIR,
    GATEWAY_LOGS,
    GATEWAY_STATE,
    GATEWAY_STATUS_SOCKET,
)
from fleet.kit.paths import LIB
from fleet.kit.secrets import SecretStore

MODEL = "gpt-oss:20b"
# What nginx does by itself: one connection a request to the server behind it, and a line in a log.
# The name of the upstream is the Host that it sends: Ollama on loopback answers no other one.
_BARE = """user www-data;
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/access.log;
    upstream localhost {{
        {choice}
        {servers}
        {kept}
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            {headers}
            proxy_pass http://localhost;
        }}
    }}
}}
"""


def folder_of(port: int) -> str:
    """Where the proxy at `port` has its files."""
    return f"/run/bench-{port}"


def bare(port: int, servers: Sequence[str], *, kept: bool = False, choice: str = "") -> str:
    """A `proxy_pass` to `servers` (address:port) with nginx's own defaults; its nginx.conf.

    With `kept` connections; chosen by `choice`, a directive.
    """
    return _BARE.format(
        folder=folder_of(port),
        port=port,
        choice=choice,
        servers=" ".join(f"server {server};" for server in servers),
        kept="keepalive 64;" if kept else "",
        headers='proxy_http_version 1.1; proxy_set_header Connection "";' if kept else "",
    )


def gateway(
    port: int, servers: Sequence[str], keys: int, address: str
) -> tuple[dict[str, str], str]:
    """The gateway before Ollama at `servers`, for a host with this private `address`.

    Its files by name, and one of its keys, which is limited in every way and never reaches a limit.
    """
    declared = {
        "gateway_listen": "loopback", "gateway_port": port, "private_address": address,
        "gateway_tls": "off", "gateway_metrics": "off",
        "gateway_keys": [_key(number) for number in range(keys)],
    }  # fmt: skip
    # A server on loopback is the gateway's own host's.
    hosts = {"edge" if at.startswith("127.") else f"gpu-{at}": _server(at) for at in servers}
    data = {**hosts, "edge": {**hosts.get("edge", {}), **declared}}
    inventory = Inventory(  # type: ignore[no-untyped-call]
        (list(data.items()), {}), gpu=(list(hosts), {}), gateway=(["edge"], {})
    )
    fleet = load_fleet(inventory, CAPABILITIES)
    with tempfile.TemporaryDirectory() as folder:
        fleet.secrets = SecretStore(Path(folder))
        files = {
            file.staged_name: file.text for file in config_files(fleet["edge"], fleet, (3, 0), [])
        }
        key = gateway_keys(fleet, fleet["edge"])["key3"].get_secret_value()
    return {name: _moved(text, folder_of(port)) for name, text in files.items()}, key


def _key(number: int) -> Mapping[str, Any]:
    limits = {"rate": "100000/s", "burst": 100_000, "concurrent": 4000, "tokens": "900G/mo"}
    return {"name": f"key{number}", **limits}


def _server(text: str) -> dict[str, Any]:
    address, _, port = text.partition(":")
    here = address.startswith("127.")
    where = {} if here else {"private_address": address, "ollama_listen": "private"}
    return {**where, "ollama_port": int(port), "ollama_models": [MODEL]}


def _moved(text: str, folder: str) -> str:
    """A file of the gateway whose files are all in `folder`."""
    for before, after in {
        "/run/nginx.pid": f"{folder}/nginx.pid",
        GATEWAY_STATUS_SOCKET: f"{folder}/status.sock",
        GATEWAY_LOGS: folder,
        GATEWAY_STATE: f"{folder}/state",
        GATEWAY_DIR: folder,
        LIB: folder,
    }.items():
        text = text.replace(before, after)
    return text
