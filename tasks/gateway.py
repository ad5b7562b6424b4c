"""The gateway: nginx with API keys before the fleet's Ollama servers."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import StringCommand, deploy
from pyinfra.facts.server import LinuxDistribution
from pyinfra.operations import files, server

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.backends import needs_authorities
from fleet.gateway.declared import STATE, metrics_endpoints
from fleet.gateway.facts import Nameservers, OpensslVersion
from fleet.gateway.files import (
    KERNEL,
    acme_hook,
    connection_files,
    dropin_file,
    exporter_dropins,
    health_origin,
    request_exporter_files,
    rotation_files,
    sysctl_file,
)
from fleet.gateway.operations import (
    acme_certificate,
    install_configuration,
    kernel_settings,
    live_table,
    placeholder_certificate,
    warn_of_backends,
)
from fleet.gateway.paths import (
    ACME_HOOK,
    ACME_ROOT,
    CONNECTIONS_TABLE,
    CONNECTIONS_UNIT,
    EXPORTERS,
    GATEWAY_BACKENDS,
    GATEWAY_DIR,
    GATEWAY_DROPIN,
    GATEWAY_LOG,
    GATEWAY_LOG_READERS,
    GATEWAY_LOGS,
    GATEWAY_OF_BEFORE,
    GATEWAY_SYSCTL,
    GATEWAY_UNIT,
    METRICS_UNIT,
    ROTATION_TIMER,
    ROTATION_TIMER_FILE,
)
from fleet.gateway.preflight import (
    SITE_PATTERNS,
    refuse_foreign_sites,
    refuse_without_dns,
    refuse_without_lua,
)
from fleet.gateway.settings import Gateway
from fleet.gateway.traffic import how_reloaded
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.places import Directory, have_directory
from fleet.kit.units import run_unit, stop_unit
from fleet.platform.facts import HasIpv6
from fleet.serving.again import let_back_in
from fleet.serving.operations import let_in


@deploy("Gateway")
def gateway(me: FleetHost, fleet: Fleet) -> None:
    """Serve the declared keys' owners, and nobody else, from every GPU host that is ready."""
    refuse_without_lua(me, host.get_fact(LinuxDistribution)["release_meta"])
    if GATEWAY_DROPIN not in host.get_fact(FileStates, paths=[GATEWAY_DROPIN]):
        refuse_foreign_sites(me, host.get_fact(ForeignFiles, patterns=SITE_PATTERNS))
    packages = [
        *(["ca-certificates"] if needs_authorities(me) else []),
        "curl",
        "libnginx-mod-http-lua",
        "lua-cjson",
        "logrotate",
        "nftables",
        "nginx",
        "procps",
        *(["certbot", "openssl"] if me[Gateway].tls == "acme" else []),
    ]
    # Before the package, whose own site would listen on every address: at a boot after an
    # installation that was cut short too. Masked while it is installed: nothing is there to serve.
    install_files(name="Install the drop-in", files=[dropin_file(me, host.get_fact(HasIpv6))])
    install_packages(name="Install nginx", packages=packages, masked_unit=GATEWAY_UNIT)
    have_directory(
        name="Create the directory",
        directory=Directory(GATEWAY_DIR, GATEWAY_DIR),
        group="root",
        mode="700",
    )
    _logs()
    have_directory(
        name="Create the directory of what keys have used",
        directory=STATE,
        group="www-data",
        mode="750",
    )
    if me[Gateway].tls == "acme":
        have_directory(
            name="Create the webroot",
            directory=Directory(ACME_ROOT, ACME_ROOT),
            group="root",
            mode="755",
        )
        install_files(name="Install certbot's hook", files=[acme_hook()])
        placeholder_certificate(name="Have a certificate to start with")
    else:
        # A renewal by a certbot that was used before would put its certificate over this one.
        files.file(name="Remove certbot's hook", path=ACME_HOOK, present=False)
    install_configuration(
        name="Install the configuration",
        me=me,
        fleet=fleet,
        openssl=host.get_fact(OpensslVersion),
        ipv6=host.get_fact(HasIpv6),
        resolvers=_resolvers(me),
    )
    install_files(name="Install the kernel's settings", files=[sysctl_file()])
    kernel_settings(name="Run the kernel as declared", values=KERNEL, path=GATEWAY_SYSCTL)
    _connections(me, fleet)
    run_unit(
        name="Run nginx as declared",
        unit=GATEWAY_UNIT,
        files=[GATEWAY_DROPIN],
        reload=how_reloaded(me),
        health_url=f"{health_origin(me)}/healthz",
    )
    if me[Gateway].backends:
        warn_of_backends(name="Look at the backends", me=me)
    # It has their keys.
    forgone = () if me[Gateway].backends else (GATEWAY_BACKENDS,)
    for path in (*GATEWAY_OF_BEFORE, *forgone):
        files.file(name=f"Remove {path}", path=path, present=False)
    if me[Gateway].tls == "acme":
        acme_certificate(
            name="Have a certificate from the authority",
            names=list(me[Gateway].names),
            email=me[Gateway].acme_email or "",
            directory=me[Gateway].acme_directory,
        )
    _metrics(me)


def _resolvers(me: FleetHost) -> tuple[str, ...]:
    """The DNS servers that nginx asks; none where every backend has an IP address."""
    if all(item.is_number for item in me[Gateway].backends):
        return ()
    found: tuple[str, ...] = host.get_fact(Nameservers)
    refuse_without_dns(me, found)
    return found


@deploy("Serving")
def served_again(me: FleetHost, fleet: Fleet) -> None:
    """Have a host served that a killed deploy has left out, before any other is interrupted."""
    if any(item.runs(Gateway) for item in fleet):
        let_back_in(name="Let back in who answers", me=me, fleet=fleet)


@deploy("Serving")
def serving(me: FleetHost, fleet: Fleet) -> None:
    """Tell every gateway that a GPU host is ready, where that is new."""
    if any(item.runs(Gateway) for item in fleet):
        let_in(name="Let the host in", me=me, fleet=fleet)


def _logs() -> None:
    server.group(name="Create the log's group", group=GATEWAY_LOG_READERS, system=True)
    have_directory(
        name="Create the logs' directory",
        directory=Directory(GATEWAY_LOGS, GATEWAY_LOGS),
        group="root",
        mode="755",
    )
    # Before nginx makes it with the mode of its own choice.
    files.file(
        name="Create the log",
        path=GATEWAY_LOG,
        user="www-data",
        group=GATEWAY_LOG_READERS,
        mode="640",
    )
    rotation = rotation_files()
    install_files(name="Install the logs' rotation", files=rotation)
    run_unit(name="Rotate the logs", unit=ROTATION_TIMER, files=[ROTATION_TIMER_FILE])


def _connections(me: FleetHost, fleet: Fleet) -> None:
    if me[Gateway].connections is None:
        stop_unit(name="Let addresses have any number of connections", unit=CONNECTIONS_UNIT)
        return
    rules, unit = connection_files(me, fleet)
    install_files(
        name="Install the limit of connections",
        files=[rules, unit],
        check=StringCommand("nft -c -f", rules.staged_name),
    )
    run_unit(name="Limit connections at boot", unit=CONNECTIONS_UNIT, files=[rules.path, unit.path])
    live_table(
        name="Limit connections now",
        table=CONNECTIONS_TABLE,
        path=rules.path,
        unit=CONNECTIONS_UNIT,
    )


def _metrics(me: FleetHost) -> None:
    units = [f"prometheus-{name}-exporter" for name in EXPORTERS]
    if not metrics_endpoints(me):
        for unit in [*[f"{unit}.service" for unit in units], METRICS_UNIT]:
            stop_unit(name=f"Stop {unit}", unit=unit)
        return
    dropins, own = exporter_dropins(me), request_exporter_files(me)
    # Before the packages: their units then never listen where they are not declared to.
    install_files(name="Install the exporters' drop-ins", files=dropins)
    install_packages(name="Install the exporters", packages=[*units, "python3"])
    for exporter, unit, file in zip(EXPORTERS, units, dropins, strict=True):
        run_unit(
            name=f"Run {unit}",
            unit=f"{unit}.service",
            files=[file.path],
            health_url=f"http://{metrics_endpoints(me)[exporter]}/metrics",
        )
    install_files(name="Install the metrics of keys", files=own)
    run_unit(
        name="Run the metrics of keys",
        unit=METRICS_UNIT,
        files=[file.path for file in own],
        health_url=f"http://{metrics_endpoints(me)['requests']}/metrics",
    )
