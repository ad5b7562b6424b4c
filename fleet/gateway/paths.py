"""Where the gateway is kept on a host, and the units."""

from __future__ import annotations

from pathlib import Path

from fleet.declare.logs import Logs
from fleet.kit.paths import ETC, LIB, UNITS

GATEWAY_UNIT = "nginx.service"
GATEWAY_DIR = f"{ETC}/gateway"
GATEWAY_CONFIG = f"{GATEWAY_DIR}/nginx.conf"
# What the fleet and its keys are to nginx's programs.
GATEWAY_DECLARED = f"{GATEWAY_DIR}/declared.lua"
# How nginx reaches servers that are not ours, and their keys.
GATEWAY_BACKENDS = f"{GATEWAY_DIR}/backends.conf"
GATEWAY_DRAINED = f"{GATEWAY_DIR}/drained"
GATEWAY_SERVED = f"{GATEWAY_DIR}/served"
GATEWAY_IDLE = f"{GATEWAY_DIR}/idle"
# Files of releases of before: keys as they are, and the servers in nginx's own words.
GATEWAY_SERVERS_OF_BEFORE = f"{GATEWAY_DIR}/servers.conf"
GATEWAY_OF_BEFORE = (f"{GATEWAY_DIR}/keys.conf", GATEWAY_SERVERS_OF_BEFORE)
# Of the workers: what keys have used.
GATEWAY_STATE = "/var/lib/llm-fleet-gateway"
GATEWAY_USAGE = f"{GATEWAY_STATE}/usage"  # made by nginx
GATEWAY_CERTIFICATE = f"{GATEWAY_DIR}/tls.crt"
GATEWAY_CERTIFICATE_KEY = f"{GATEWAY_DIR}/tls.key"
GATEWAY_STATUS_SOCKET = "/run/llm-fleet-status.sock"
# Not nginx's own folder: what is rotated there, and for whom, is the package's to say.
GATEWAY_LOGS = "/var/log/llm-fleet"
GATEWAY_LOG = f"{GATEWAY_LOGS}/gateway.log"
GATEWAY_ERRORS = f"{GATEWAY_LOGS}/error.log"
GATEWAY_LOG_READERS = "llm-fleet-log"  # group
GATEWAY_ROTATION = f"{GATEWAY_DIR}/logrotate.conf"
ROTATION_UNIT = "llm-fleet-gateway-logs.service"
ROTATION_UNIT_FILE = f"{UNITS}/{ROTATION_UNIT}"
ROTATION_TIMER = "llm-fleet-gateway-logs.timer"
ROTATION_TIMER_FILE = f"{UNITS}/{ROTATION_TIMER}"
# What one address may have of connections is the kernel's to count: nginx counts whole requests.
CONNECTIONS_TABLE = "inet llm_fleet_gateway"
GATEWAY_CONNECTIONS = f"{GATEWAY_DIR}/connections.nft"
CONNECTIONS_UNIT = "llm-fleet-gateway-connections.service"
CONNECTIONS_UNIT_FILE = f"{UNITS}/{CONNECTIONS_UNIT}"
GATEWAY_SYSCTL = "/etc/sysctl.d/60-llm-fleet-gateway.conf"
GATEWAY_DROPIN = f"{UNITS}/{GATEWAY_UNIT}.d/llm-fleet.conf"
# What nginx runs at each request; it calls the last one.
GATEWAY_FIELDS = f"{LIB}/gateway_fields.lua"
GATEWAY_PROGRAMS = tuple(
    f"{LIB}/{path.name}" for path in sorted((Path(__file__).parent / "on_host").glob("*.lua"))
)
ACME_ROOT = "/var/lib/llm-fleet-acme"
ACME_HOOK = f"{LIB}/install-certificate"
ACME_NAME = "llm-fleet"
METRICS_UNIT = "llm-fleet-gateway-metrics.service"
METRICS_UNIT_FILE = f"{UNITS}/{METRICS_UNIT}"
METRICS_PROGRAM = f"{LIB}/gateway_metrics.py"
# Exporters of the distribution: unit to the drop-in that binds it privately.
EXPORTERS = {
    name: f"{UNITS}/prometheus-{name}-exporter.service.d/llm-fleet-{name}.conf"
    for name in ("nginx", "node")
}

LOGS = Logs(
    units=(
        GATEWAY_UNIT,
        METRICS_UNIT,
        CONNECTIONS_UNIT,
        ROTATION_UNIT,
        *(f"prometheus-{name}-exporter.service" for name in EXPORTERS),
    ),
    files=(GATEWAY_LOG, GATEWAY_ERRORS),
)
