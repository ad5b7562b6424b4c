"""The front door: nginx with API keys before the fleet's Ollama servers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import SecretStr
from pyinfra import host
from pyinfra.api import StringCommand, deploy
from pyinfra.operations import files

from fleet.declare.load import PROJECT_ROOT, Endpoint, Fleet, FleetHost
from fleet.gateway import tls
from fleet.gateway.facts import DrainedHosts, OpensslVersion
from fleet.gateway.keys import key_entries, key_tables
from fleet.gateway.operations import acme_certificate, kernel_settings, placeholder_certificate
from fleet.kit import paths
from fleet.kit.durations import seconds
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.packages import install_packages
from fleet.kit.render import host_program, render
from fleet.kit.units import run_unit, stop_unit

_FIRST_WITH_ML_KEM = (3, 5)
# A host that has lost its power answers nothing, not even that it is gone. A request to it over a
# kept connection is given up after 13 s (default: 15 minutes), one that waits for its answer after
# 45 s (default: 2 hours).
_NEXT_HOST = 20  # seconds in which a request may be given to another host: more than those 13
KERNEL = {
    "net.ipv4.tcp_retries2": 5,
    "net.ipv4.tcp_keepalive_time": 30,
    "net.ipv4.tcp_keepalive_intvl": 5,
    "net.ipv4.tcp_keepalive_probes": 3,
}


@dataclass(frozen=True)
class Upstream:
    """An Ollama server as nginx sees it. `name` is how admins call it, below `/hosts/`."""

    name: str
    endpoint: Endpoint
    drained: bool


def upstreams(fleet: Fleet, drained: list[str]) -> list[Upstream]:
    """Every server of every GPU host, of which the `drained` hosts' get no requests.

    A host of several servers is called by its name alone too: then the first one answers, as what
    they have on the disk is the same.
    """
    return [
        Upstream(f"{gpu.name}/{item.name}".rstrip("/"), item.endpoint, gpu.name in drained)
        for gpu in fleet.gpu_hosts
        for item in gpu.instances
    ]


@deploy("Gateway")
def gateway(me: FleetHost, fleet: Fleet) -> None:
    """Serve the declared keys' owners, and nobody else, from every GPU host."""
    _refuse_foreign_sites(me)
    packages = [
        "curl",
        "logrotate",
        "nginx",
        "procps",
        *(["certbot", "openssl"] if me.gateway.tls == "acme" else []),
    ]
    # Masked while it is installed: the package's own site would listen on every address.
    install_packages(name="Install nginx", packages=packages, masked_unit=paths.GATEWAY_UNIT)
    files.directory(name="Create the directory", path=paths.GATEWAY_DIR, mode="700")
    # Before nginx makes it with the mode of its own choice.
    files.file(
        name="Create the log", path=paths.GATEWAY_LOG, user="www-data", group="adm", mode="640"
    )
    if me.gateway.tls == "acme":
        files.directory(name="Create the webroot", path=paths.ACME_ROOT, mode="755")
        install_files(name="Install certbot's hook", files=[acme_hook()])
        placeholder_certificate(name="Have a certificate to start with")
    else:
        # A renewal by a certbot that was used before would put its certificate over this one.
        files.file(name="Remove certbot's hook", path=paths.ACME_HOOK, present=False)
    install_files(
        name="Install the configuration",
        files=config_files(me, fleet, host.get_fact(OpensslVersion), host.get_fact(DrainedHosts)),
        check=StringCommand('nginx -t -q -c "$PWD/nginx.conf"'),
    )
    install_files(name="Install the kernel's settings", files=[sysctl_file()])
    kernel_settings(name="Run the kernel as declared", values=KERNEL, path=paths.GATEWAY_SYSCTL)
    install_files(name="Install the drop-in", files=[dropin_file()])
    run_unit(
        name="Run nginx as declared",
        unit=paths.GATEWAY_UNIT,
        files=[paths.GATEWAY_DROPIN],
        reload_files=loaded_files(me),
        health_url=f"{health_origin(me)}/healthz",
    )
    if me.gateway.tls == "acme":
        acme_certificate(
            name="Have a certificate from the authority",
            names=list(me.gateway.names),
            email=me.gateway.acme_email or "",
            directory=me.gateway.acme_directory,
        )
    _metrics(me)


def _metrics(me: FleetHost) -> None:
    units = [f"prometheus-{name}-exporter" for name in paths.EXPORTERS]
    if not me.metrics_endpoints:
        for unit in [*[f"{unit}.service" for unit in units], paths.METRICS_UNIT]:
            stop_unit(name=f"Stop {unit}", unit=unit)
        return
    program, unit_file, *dropins = metrics_files(me)
    # Before the packages: their units then never listen where they are not declared to.
    install_files(name="Install the exporters' drop-ins", files=dropins)
    install_packages(name="Install the exporters", packages=units)
    for unit, file in zip(units, dropins, strict=True):
        run_unit(name=f"Run {unit}", unit=f"{unit}.service", files=[file.path])
    install_files(name="Install the metrics of keys", files=[program, unit_file])
    run_unit(
        name="Run the metrics of keys",
        unit=paths.METRICS_UNIT,
        files=[paths.METRICS_PROGRAM, paths.METRICS_UNIT_FILE],
        health_url=f"http://{me.metrics_endpoints['requests']}/metrics",
    )


def _refuse_foreign_sites(me: FleetHost) -> None:
    """nginx serves one configuration: taking a host over would end the sites that it has."""
    if paths.GATEWAY_DROPIN in host.get_fact(FileStates, paths=[paths.GATEWAY_DROPIN]):
        return
    found = host.get_fact(
        ForeignFiles, patterns=["/etc/nginx/sites-enabled/*", "/etc/nginx/conf.d/*.conf"]
    )
    sites = [path for path in found if path != "/etc/nginx/sites-enabled/default"]
    if sites:
        raise FleetError(
            f"{me.name}: nginx serves other sites here ({', '.join(sites)}), which the front door "
            "would replace; take another host for the gateway, or move the sites away"
        )


def config_files(
    me: FleetHost, fleet: Fleet, openssl: tuple[int, int], drained: list[str]
) -> list[ManagedFile]:
    """nginx's whole configuration, and what it includes: keys, certificate.

    `openssl` is the version on the gateway; `drained` are the hosts that get no requests.
    """
    previous = {
        key.name: before
        for key in me.gateway.keys
        if (before := fleet.previous_gateway_key(key.name)) is not None
    }
    read_timeout = round(seconds(me.gateway.read_timeout))
    config = render(
        "gateway/nginx.conf.j2",
        settings=me.gateway,
        endpoints=me.gateway_endpoints,
        redirect_endpoints=me.redirect_endpoints,
        redirect_host=me.gateway.names[0] if me.gateway.names else "$host",
        acme_root=paths.ACME_ROOT,
        inspect_socket=paths.GATEWAY_INSPECT_SOCKET,
        status_socket=paths.GATEWAY_STATUS_SOCKET,
        read_timeout=read_timeout,
        next_timeout=max(1, min(_NEXT_HOST, read_timeout - 1)),
        upstreams=upstreams(fleet, drained),
        managed={
            **{gpu.name: gpu.ollama_endpoint for gpu in fleet.gpu_hosts},
            **{item.name: item.endpoint for item in upstreams(fleet, drained)},
        },
        tables=key_tables(me.gateway.keys, previous),
        tls=_tls(me, openssl),
    )
    keys = render(
        "gateway/keys.conf.j2",
        entries=key_entries(me.gateway.keys, fleet.gateway_keys(me), previous),
        internal=fleet.secrets.api_key("gateway_internal").get_secret_value(),
    )
    return [
        ManagedFile(paths.GATEWAY_CONFIG, config),
        ManagedFile(paths.GATEWAY_KEYS, SecretStr(keys), mode="600"),
        *_certificate_files(me, fleet),
    ]


def loaded_files(me: FleetHost) -> list[str]:
    """What nginx reads when it is started or reloaded."""
    certificate = [paths.GATEWAY_CERTIFICATE, paths.GATEWAY_CERTIFICATE_KEY]
    return [
        paths.GATEWAY_CONFIG,
        paths.GATEWAY_KEYS,
        *(certificate if me.gateway.tls != "off" else []),
    ]


def dropin_file() -> ManagedFile:
    """The drop-in that has the package's unit read our configuration only."""
    return ManagedFile(
        paths.GATEWAY_DROPIN,
        render(
            "gateway/nginx.dropin.conf.j2",
            config=paths.GATEWAY_CONFIG,
            sockets=[paths.GATEWAY_INSPECT_SOCKET, paths.GATEWAY_STATUS_SOCKET],
        ),
    )


def sysctl_file() -> ManagedFile:
    """What the kernel is told at boot."""
    return ManagedFile(paths.GATEWAY_SYSCTL, render("gateway/sysctl.conf.j2", values=KERNEL))


def acme_hook() -> ManagedFile:
    """What certbot runs when it has a new certificate."""
    return ManagedFile(paths.ACME_HOOK, host_program("gateway", "install-certificate"), mode="755")


def metrics_files(me: FleetHost) -> list[ManagedFile]:
    """The exporter of requests, its unit, and the other exporters' drop-ins."""
    endpoints = me.metrics_endpoints
    unit = render(
        "gateway/metrics.service.j2",
        program=paths.METRICS_PROGRAM,
        log=paths.GATEWAY_LOG,
        endpoint=endpoints["requests"],
    )
    dropins = [
        ManagedFile(
            path,
            render(
                "gateway/exporter.dropin.conf.j2",
                name=name,
                endpoint=endpoints[name],
                status_socket=paths.GATEWAY_STATUS_SOCKET,
            ),
        )
        for name, path in paths.EXPORTERS.items()
    ]
    program = host_program("gateway", "gateway_metrics.py")
    return [
        ManagedFile(paths.METRICS_PROGRAM, program),
        ManagedFile(paths.METRICS_UNIT_FILE, unit),
        *dropins,
    ]


def health_origin(me: FleetHost) -> str:
    """How the gateway's own host reaches the front door."""
    scheme = "http" if me.gateway.tls == "off" else "https"
    if me.gateway.listen == "any":
        return f"{scheme}://{Endpoint('127.0.0.1', me.gateway.port)}"
    return f"{scheme}://{me.gateway_endpoints[0]}"


def curves(openssl: tuple[int, int]) -> str:
    """Mozilla's curves (guideline 6.0); an older OpenSSL refuses the whole list for one name."""
    hybrid = "X25519MLKEM768:" if openssl >= _FIRST_WITH_ML_KEM else ""
    return f"{hybrid}X25519:prime256v1:secp384r1"


def _tls(me: FleetHost, openssl: tuple[int, int]) -> dict[str, str] | None:
    if me.gateway.tls == "off":
        return None
    certificate, key = paths.GATEWAY_CERTIFICATE, paths.GATEWAY_CERTIFICATE_KEY
    if me.gateway.tls != "acme":
        # Relative to the configuration, so that it is judged with the files that it will meet.
        certificate, key = PurePosixPath(certificate).name, PurePosixPath(key).name
    return {"certificate": certificate, "key": key, "curves": curves(openssl)}


def _certificate_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    if me.gateway.tls == "private-ca":
        certificate, key = tls.issued(fleet.secrets, me.name, me.gateway_names)
    elif me.gateway.tls == "given":
        certificate = (PROJECT_ROOT / str(me.gateway.tls_certificate)).read_text()
        key = fleet.secrets.text(tls.GIVEN_KEY, str)
    else:
        return []
    return [
        ManagedFile(paths.GATEWAY_CERTIFICATE, certificate.rstrip("\n") + "\n"),
        ManagedFile(
            paths.GATEWAY_CERTIFICATE_KEY,
            SecretStr(key.get_secret_value().rstrip("\n") + "\n"),
            mode="600",
        ),
    ]
