"""Every file of the gateway."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from pathlib import PurePosixPath

from pydantic import SecretStr

from fleet.declare.fleet import Endpoint, Fleet, FleetHost, Url
from fleet.gateway import tls
from fleet.gateway.backends import backend_files, backend_paths, socket_of
from fleet.gateway.declared import (
    authority_names,
    gateway_endpoints,
    gateway_names,
    gateway_url,
    metrics_endpoints,
    redirect_endpoints,
)
from fleet.gateway.declared_lua import declared_lua
from fleet.gateway.fields import as_lua
from fleet.gateway.paths import (
    ACME_HOOK,
    ACME_ROOT,
    CONNECTIONS_TABLE,
    CONNECTIONS_UNIT_FILE,
    EXPORTERS,
    GATEWAY_BACKENDS,
    GATEWAY_CERTIFICATE,
    GATEWAY_CERTIFICATE_KEY,
    GATEWAY_CONFIG,
    GATEWAY_CONNECTIONS,
    GATEWAY_DECLARED,
    GATEWAY_DRAINED,
    GATEWAY_DROPIN,
    GATEWAY_FIELDS,
    GATEWAY_IDLE,
    GATEWAY_LOG,
    GATEWAY_LOG_READERS,
    GATEWAY_LOGS,
    GATEWAY_PROGRAMS,
    GATEWAY_ROTATION,
    GATEWAY_SERVED,
    GATEWAY_SERVERS_OF_BEFORE,
    GATEWAY_STATE,
    GATEWAY_STATUS_SOCKET,
    GATEWAY_SYSCTL,
    METRICS_PROGRAM,
    METRICS_UNIT_FILE,
    ROTATION_TIMER_FILE,
    ROTATION_UNIT_FILE,
)
from fleet.gateway.settings import Gateway
from fleet.kit.durations import seconds
from fleet.kit.files import ManagedFile
from fleet.kit.host_programs import program_files
from fleet.kit.paths import LIB
from fleet.kit.render import host_program, render
from fleet.platform.settings import Platform

_FIRST_WITH_ML_KEM = (3, 5)
# A host that has lost its power answers nothing, not even that it is gone. A request that is being
# sent to it is given up after 13 s (default: 15 minutes), one that waits for its answer after 45 s
# (default: 2 hours).
KERNEL = {
    "net.ipv4.tcp_retries2": 5,
    "net.ipv4.tcp_keepalive_time": 30,
    "net.ipv4.tcp_keepalive_intvl": 5,
    "net.ipv4.tcp_keepalive_probes": 3,
}
_NEXT_HOST = 20  # seconds in which a request may be given to another host: more than those 13


def ready_servers(fleet: Fleet, served: Collection[str]) -> frozenset[str]:
    """The servers of ours that are ready, where a gateway has those that are `served` for it.

    A host that is served by a name which none of its servers has any more is about to replace them,
    in its turn. Until then it is served as before, by all names that it has now.
    """
    names = {item.name for item in fleet.servers()}
    others = {name for name in served if name not in names}
    # A host's own name may have a slash.
    renamed = {*others, *(name.rpartition("/")[0] for name in others)}
    return frozenset(
        item.name
        for item in fleet.servers()
        if item.ours and (item.name in served or item.host.name in renamed)
    )


def without_requests(fleet: Fleet, drained: Collection[str], served: Collection[str]) -> list[str]:
    """The servers that get no requests: of hosts that are `drained`, or not yet `served`.

    No deploy makes ready what is not ours: looks tell whether that answers.
    """
    ready = ready_servers(fleet, served)
    return [
        item.name
        for item in fleet.servers()
        if item.host.name in drained or (item.ours and item.name not in ready)
    ]


def calls_from(me: FleetHost, fleet: Fleet) -> IPv4Address | IPv6Address | None:
    """The address that the gateway calls from, which the servers' firewalls know.

    A host with several addresses would call from any of them. None where it has no private one, or
    where that cannot call all servers, as they have addresses of both kinds.
    """
    own = me[Platform].private_address
    addresses = [ip_address(item.endpoint.address) for item in fleet.servers() if item.ours]
    all_local = all(item.is_loopback for item in addresses)
    if own is None or all_local or {item.version for item in addresses} != {own.version}:
        return None
    return own


def config_files(  # noqa: PLR0913, PLR0917 - what it asks of a gateway comes from facts
    me: FleetHost,
    fleet: Fleet,
    openssl: tuple[int, int],
    idle: Collection[str],
    ipv6: bool = True,
    resolvers: tuple[str, ...] = (),
) -> list[ManagedFile]:
    """nginx's whole configuration, and what it reads besides: keys, servers, certificate.

    `openssl` is the version on the gateway; `idle` are the servers that get no requests. Without
    `ipv6` its kernel has none, and any address is any of IPv4: nginx would not start. `resolvers`
    are its DNS servers.
    """
    read_timeout = round(seconds(me[Gateway].read_timeout))
    config = render(
        "gateway/nginx.conf.j2",
        settings=me[Gateway],
        endpoints=_known(gateway_endpoints(me), ipv6),
        redirect_endpoints=_known(redirect_endpoints(me), ipv6),
        # Never the name that a caller gives: that could lead elsewhere.
        own_url=gateway_url(me) or Url("https", gateway_endpoints(me)[0]),
        acme_root=ACME_ROOT,
        programs=LIB,
        status_socket=GATEWAY_STATUS_SOCKET,
        read_timeout=read_timeout,
        next_timeout=max(1, min(_NEXT_HOST, read_timeout - 1)),
        calls_from=calls_from(me, fleet),
        declared=GATEWAY_DECLARED,
        idle=GATEWAY_IDLE,
        logs=GATEWAY_LOGS,
        backends=PurePosixPath(GATEWAY_BACKENDS).name if me[Gateway].backends else "",
        tls=_tls(me, openssl),
    )
    return [
        *request_programs(),
        idle_file(idle),
        ManagedFile(GATEWAY_CONFIG, config),
        ManagedFile(
            GATEWAY_DECLARED, SecretStr(declared_lua(me, fleet, calls_from(me, fleet))), mode="600"
        ),
        *backend_files(me, fleet, resolvers),
        *_certificate_files(me, fleet),
    ]


def _known(endpoints: tuple[Endpoint, ...], ipv6: bool) -> tuple[Endpoint, ...]:
    return tuple(item for item in endpoints if ipv6 or ":" not in item.address)


def request_programs() -> list[ManagedFile]:
    """What nginx runs at each request, and what of one may pass."""
    return [
        ManagedFile(GATEWAY_FIELDS, as_lua()),
        *(
            ManagedFile(path, host_program("gateway", PurePosixPath(path).name))
            for path in GATEWAY_PROGRAMS
        ),
    ]


def idle_file(names: Iterable[str]) -> ManagedFile:
    """The servers `names` that get no requests: what follows from the two files below."""
    text = "# Managed by llm-fleet: servers that get no requests.\n"
    return ManagedFile(GATEWAY_IDLE, text + "".join(f"{name}\n" for name in sorted(names)))


def servers_of_before(fleet: Fleet, idle: Collection[str]) -> ManagedFile:
    """The servers as the gateway of a release of before reads them, until a deploy replaces it."""
    lines = (
        f"server {item.endpoint} max_fails=1 fail_timeout=5s{' down' if item.name in idle else ''};"
        for item in fleet.servers()
        if item.ours
    )
    text = "\n".join(["upstream ollama {", "zone ollama 256k;", "least_conn;", *lines, "}", ""])
    return ManagedFile(GATEWAY_SERVERS_OF_BEFORE, text)


def drained_file(drained: Mapping[str, str]) -> ManagedFile:
    """The GPU hosts that an operator has drained, each with who and when; kept through deploys."""
    text = "# Managed by llm-fleet: `fleet drain` and `fleet undrain` change it.\n"
    lines = [f"{name} {note}".rstrip() for name, note in sorted(drained.items())]
    return ManagedFile(GATEWAY_DRAINED, text + "".join(f"{line}\n" for line in lines))


def served_file(names: Iterable[str]) -> ManagedFile:
    """The servers `names` that a deploy has found ready, but for those that it is about to stop."""
    text = "# Managed by llm-fleet: deploys write down who is ready to be served.\n"
    return ManagedFile(GATEWAY_SERVED, text + "".join(f"{name}\n" for name in sorted(names)))


def loaded_files(me: FleetHost) -> list[str]:
    """What nginx reads at a start or reload, but for what certbot's hook reloads itself."""
    certificate = [GATEWAY_CERTIFICATE, GATEWAY_CERTIFICATE_KEY]
    return [
        GATEWAY_FIELDS,
        *GATEWAY_PROGRAMS,
        GATEWAY_IDLE,
        GATEWAY_CONFIG,
        GATEWAY_DECLARED,
        *backend_paths(me),
        *(certificate if me[Gateway].tls in ("private-ca", "given") else []),
    ]


def dropin_file(me: FleetHost, ipv6: bool = True) -> ManagedFile:
    """The drop-in that has the package's unit read our configuration only.

    It says where nginx listens (see `config_files`), as that takes a restart.
    """
    return ManagedFile(
        GATEWAY_DROPIN,
        render(
            "gateway/nginx.dropin.conf.j2",
            config=GATEWAY_CONFIG,
            logs=GATEWAY_LOGS,
            state=GATEWAY_STATE,
            sockets=[GATEWAY_STATUS_SOCKET, socket_of("*")],
            endpoints=_known((*gateway_endpoints(me), *redirect_endpoints(me)), ipv6),
        ),
    )


def rotation_files() -> list[ManagedFile]:
    """What keeps the logs small, and the unit and the timer that do it."""
    return [
        ManagedFile(
            GATEWAY_ROTATION,
            render("gateway/logrotate.conf.j2", logs=GATEWAY_LOGS, readers=GATEWAY_LOG_READERS),
        ),
        ManagedFile(
            ROTATION_UNIT_FILE,
            render("gateway/logs.service.j2", logs=GATEWAY_LOGS, config=GATEWAY_ROTATION),
        ),
        ManagedFile(ROTATION_TIMER_FILE, render("gateway/logs.timer.j2")),
    ]


def connection_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """The rules that limit an address's connections, and the unit that loads them, if any do."""
    if me[Gateway].connections is None:
        return []
    ports = {endpoint.port for endpoint in (*gateway_endpoints(me), *redirect_endpoints(me))}
    hosts = [host[Platform].private_address for host in fleet]
    free = [*(ip_network(str(host)) for host in hosts if host), *me[Gateway].connections_free]
    # As nft keeps a set: no network is within another.
    families = {
        "ip": collapse_addresses(item for item in free if isinstance(item, IPv4Network)),
        "ip6": collapse_addresses(item for item in free if isinstance(item, IPv6Network)),
    }
    listed = {family: [str(item) for item in networks] for family, networks in families.items()}
    rules = render(
        "gateway/connections.nft.j2",
        table=CONNECTIONS_TABLE,
        ports=sorted(ports),
        free={family: networks for family, networks in listed.items() if networks},
        most=me[Gateway].connections,
    )
    unit = render(
        "gateway/connections.service.j2", rules=GATEWAY_CONNECTIONS, table=CONNECTIONS_TABLE
    )
    return [
        ManagedFile(GATEWAY_CONNECTIONS, rules),
        ManagedFile(CONNECTIONS_UNIT_FILE, unit),
    ]


def sysctl_file() -> ManagedFile:
    """What the kernel is told at boot."""
    return ManagedFile(GATEWAY_SYSCTL, render("gateway/sysctl.conf.j2", values=KERNEL))


def acme_hook() -> ManagedFile:
    """What certbot runs when it has a new certificate."""
    return ManagedFile(ACME_HOOK, host_program("gateway", "install-certificate"), mode="755")


def metrics_files(me: FleetHost) -> list[ManagedFile]:
    """The exporter of requests, its unit, and the other exporters' drop-ins."""
    return [*request_exporter_files(me), *exporter_dropins(me)]


def request_exporter_files(me: FleetHost) -> list[ManagedFile]:
    """The program that counts requests by key, and its unit."""
    unit = render(
        "gateway/metrics.service.j2",
        program=METRICS_PROGRAM,
        log=GATEWAY_LOG,
        readers=GATEWAY_LOG_READERS,
        endpoint=metrics_endpoints(me)["requests"],
    )
    return [*program_files("gateway", "gateway_metrics"), ManagedFile(METRICS_UNIT_FILE, unit)]


def exporter_dropins(me: FleetHost) -> list[ManagedFile]:
    """What binds each of the distribution's exporters to its declared address."""
    endpoints = metrics_endpoints(me)
    return [
        ManagedFile(
            path,
            render(
                "gateway/exporter.dropin.conf.j2",
                name=name,
                endpoint=endpoints[name],
                status_socket=GATEWAY_STATUS_SOCKET,
            ),
        )
        for name, path in EXPORTERS.items()
    ]


def health_origin(me: FleetHost) -> Url:
    """How the gateway's own host reaches the gateway."""
    is_any = me[Gateway].listen == "any"
    where = Endpoint("127.0.0.1", me[Gateway].port) if is_any else gateway_endpoints(me)[0]
    return Url("http" if me[Gateway].tls == "off" else "https", where)


def curves(openssl: tuple[int, int]) -> str:
    """Mozilla's curves (guideline 6.0); an older OpenSSL refuses the whole list for one name."""
    hybrid = "X25519MLKEM768:" if openssl >= _FIRST_WITH_ML_KEM else ""
    return f"{hybrid}X25519:prime256v1:secp384r1"


def _tls(me: FleetHost, openssl: tuple[int, int]) -> dict[str, str] | None:
    if me[Gateway].tls == "off":
        return None
    certificate, key = GATEWAY_CERTIFICATE, GATEWAY_CERTIFICATE_KEY
    if me[Gateway].tls != "acme":
        # Relative to the configuration, so that it is judged with the files that it will meet.
        certificate, key = PurePosixPath(certificate).name, PurePosixPath(key).name
    return {"certificate": certificate, "key": key, "curves": curves(openssl)}


def _certificate_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    if me[Gateway].tls == "private-ca":
        certificate, key = tls.issued(
            fleet.secrets, me.name, gateway_names(me), authority_names(fleet)
        )
    elif me[Gateway].tls == "given":
        certificate = (fleet.root / str(me[Gateway].tls_certificate)).read_text()
        key = fleet.secrets.text(tls.GIVEN_KEY, str)
    else:
        return []
    return [
        ManagedFile(GATEWAY_CERTIFICATE, certificate.rstrip("\n") + "\n"),
        ManagedFile(
            GATEWAY_CERTIFICATE_KEY,
            SecretStr(key.get_secret_value().rstrip("\n") + "\n"),
            mode="600",
        ),
    ]
