"""What the gateway puts on a host."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.gateway.files import KERNEL
from fleet.gateway.paths import (
    ACME_HOOK,
    ACME_NAME,
    ACME_ROOT,
    CONNECTIONS_TABLE,
    CONNECTIONS_UNIT,
    EXPORTERS,
    GATEWAY_DIR,
    GATEWAY_DROPIN,
    GATEWAY_FIELDS,
    GATEWAY_LOG_READERS,
    GATEWAY_LOGS,
    GATEWAY_PROGRAMS,
    GATEWAY_STATE,
    GATEWAY_SYSCTL,
    GATEWAY_UNIT,
    METRICS_UNIT,
    ROTATION_TIMER,
    ROTATION_UNIT,
)
from fleet.kit.footprint import Part, Trace, dropins, files, folders, packages, units
from fleet.kit.host_programs import program_files

# What a kernel has that nobody has told otherwise.
_KERNELS_OWN = {
    "net.ipv4.tcp_retries2": 15,
    "net.ipv4.tcp_keepalive_time": 7200,
    "net.ipv4.tcp_keepalive_intvl": 75,
    "net.ipv4.tcp_keepalive_probes": 9,
}
_CERTBOT = "/etc/letsencrypt"


def footprint(_: FleetHost) -> Iterator[Trace]:
    """nginx as the gateway runs it, with keys and certificates; logs are kept."""
    exporters = {f"prometheus-{name}-exporter.service": path for name, path in EXPORTERS.items()}
    yield Trace(
        f"`{GATEWAY_DIR}`, drop-ins for `{GATEWAY_UNIT}` and the exporters",
        "nginx's configuration, keys and certificates: the package's unit reads nothing else; "
        f"units of our own for logs and metrics, and the nftables table `{CONNECTIONS_TABLE}`",
        (
            Part("unit", GATEWAY_UNIT, GATEWAY_DROPIN),
            # Without its drop-in one would listen on every address.
            *(Part("unit", unit, path) for unit, path in exporters.items()),
            *units(METRICS_UNIT, CONNECTIONS_UNIT, ROTATION_TIMER, ROTATION_UNIT),
            *dropins(GATEWAY_DROPIN, *exporters.values()),
            *files(GATEWAY_FIELDS, *GATEWAY_PROGRAMS, ACME_HOOK),
            *files(*(file.path for file in program_files("gateway", "gateway_metrics"))),
            Part("tree", GATEWAY_DIR),
            Part("tree", ACME_ROOT),
            Part("tree", "/var/lib/llm-fleet-gateway-logs"),
            *files(f"{_CERTBOT}/renewal/{ACME_NAME}.conf"),
            *(Part("tree", f"{_CERTBOT}/{name}/{ACME_NAME}") for name in ("live", "archive")),
            Part("table", CONNECTIONS_TABLE),
        ),
    )
    yield Trace(
        f"`{GATEWAY_SYSCTL}`",
        "TCP gives up on dead peers sooner; what the kernel runs with goes back to its own values",
        (
            *(
                Part("sysctl", f"{key}={value}", GATEWAY_SYSCTL, str(_KERNELS_OWN[key]))
                for key, value in KERNEL.items()
            ),
            *files(GATEWAY_SYSCTL),
        ),
    )
    yield Trace(
        f"`{GATEWAY_LOGS}`, group `{GATEWAY_LOG_READERS}`",
        "who asked when, by key; without questions and answers",
        (Part("tree", GATEWAY_LOGS), Part("group", GATEWAY_LOG_READERS), *folders(GATEWAY_LOGS)),
        "data",
        "logs may be the only record of what was served",
    )
    yield Trace(
        f"`{GATEWAY_STATE}`",
        "how many tokens each key has used, of which model, on which day",
        (Part("tree", GATEWAY_STATE),),
        "data",
        "it may be the only record of who used what",
    )
    yield Trace(
        "packages `nginx`, `libnginx-mod-http-lua`, `lua-cjson`, `logrotate`, `procps`; "
        "Prometheus' exporters; `certbot` and `openssl` where declared",
        "on gateways; the package's own nginx sites are left where they are, unused",
        packages(
            "nginx", "libnginx-mod-http-lua", "lua-cjson", "logrotate", "procps", "certbot",
            "openssl", "prometheus-nginx-exporter", "prometheus-node-exporter",
        ),
        "stays",
        "stopped, and started at no boot; `apt-get purge` them if nothing else needs them",
    )  # fmt: skip
