"""A gateway's configuration, the certificates that it fetches by itself, and its kernel."""

from __future__ import annotations

from collections.abc import Mapping

from pyinfra import host, logger, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.context import ctx_state
from pyinfra.facts.server import Sysctl

from fleet.declare.fleet import Fleet, FleetHost
from fleet.firewall.facts import RulesetState
from fleet.gateway.facts import AcmeNames, DrainedHosts, Seen, SeenServers, ServedServers
from fleet.gateway.files import (
    config_files,
    drained_file,
    ready_servers,
    served_file,
    without_requests,
)
from fleet.gateway.front import found_ready
from fleet.gateway.paths import (
    ACME_HOOK,
    ACME_NAME,
    ACME_ROOT,
    GATEWAY_CERTIFICATE,
    GATEWAY_CERTIFICATE_KEY,
)
from fleet.gateway.settings import Gateway
from fleet.kit.commands import Commands, or_journal
from fleet.kit.facts.files import FileStates
from fleet.kit.files import install_files

_LOOKS = 12  # seconds in which nginx has looked at every server, one that does not answer too


@operation()
def install_configuration(
    me: FleetHost,
    fleet: Fleet,
    openssl: tuple[int, int],
    ipv6: bool,
    resolvers: tuple[str, ...] = (),
) -> Commands:
    """Have nginx's whole configuration in place; who gets requests stays as it is.

    That is looked up when the step is executed: another deploy may have written it down meanwhile.
    Hosts that left the inventory are dropped; one whose servers have other names stays. A gateway
    that is new serves no host of this run before it is ready, and every other one.
    """
    drained: dict[str, str] = host.get_fact(DrainedHosts)
    served: tuple[str, ...] | None = host.get_fact(ServedServers)
    if served is None:
        here = {item.name for item in (*state.activated_hosts, *state.failed_hosts)}
        here -= found_ready(ctx_state.get())  # type: ignore[no-untyped-call]
        served = tuple(item.name for item in fleet.servers() if item.host.name not in here)
    servers = fleet.servers()
    there = {item.host.name for item in servers}
    kept = {name: note for name, note in drained.items() if name in there}
    ready = sorted(ready_servers(fleet, served))
    gone = sorted(set(drained) - set(kept))
    if gone and state.is_executing:
        host.log(f"no longer in the inventory, and so not drained any more: {', '.join(gone)}")
    if kept and state.is_executing:
        host.log(
            "drained, gets no requests until `fleet undrain`: "
            + ", ".join(f"{name} {note}".rstrip() for name, note in kept.items()),
            log_func=logger.warning,
        )
    yield from install_files._inner(
        files=[
            drained_file(kept),
            served_file(ready),
            *config_files(
                me, fleet, openssl, without_requests(fleet, kept, ready), ipv6, resolvers
            ),
        ],
        check=StringCommand('nginx -t -q -c "$PWD/nginx.conf"'),
    )


@operation()
def warn_of_backends(me: FleetHost) -> Commands:
    """Say which backends do not answer: that is their own trouble, and no reason to fail."""
    if state.is_executing:
        seen: Mapping[str, Seen] | None = host.get_fact(SeenServers, patience=_LOOKS)
        for item in me[Gateway].backends:
            one = (seen or {}).get(item.name)
            if one is None or not one.well:
                why = one.why if one and one.why else "nginx does not tell how it is"
                host.log(
                    f"backend {item.name} gets no requests until it answers: {why}",
                    log_func=logger.warning,
                )
    host.noop("backends were looked at")
    yield from ()


@operation()
def placeholder_certificate() -> Commands:
    """Have a certificate that nginx can start with, until the authority has seen it answer."""
    files = [GATEWAY_CERTIFICATE, GATEWAY_CERTIFICATE_KEY]
    if len(host.get_fact(FileStates, paths=files)) == len(files):
        host.noop("there is a certificate")
        return
    yield StringCommand(
        "umask 077; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes",
        "-days 7 -subj /CN=placeholder -out", GATEWAY_CERTIFICATE,
        "-keyout", GATEWAY_CERTIFICATE_KEY, "2>/dev/null",
    )  # fmt: skip


@operation()
def acme_certificate(names: list[str], email: str, directory: str) -> Commands:
    """Have certbot hold a certificate for `names`; its own timer renews it from then on."""
    if host.get_fact(AcmeNames) == sorted(names):
        host.noop(f"certificate for {', '.join(names)}")
        return
    domains = [bit for name in names for bit in ("-d", QuoteString(name))]
    yield StringCommand(
        "certbot certonly --non-interactive --agree-tos --keep-until-expiring --expand",
        "--webroot -w", ACME_ROOT, "--cert-name", ACME_NAME,
        "--deploy-hook", ACME_HOOK, "--server", QuoteString(directory),
        "--email", QuoteString(email), *domains,
    )  # fmt: skip


@operation()
def kernel_settings(values: dict[str, int], path: str) -> Commands:
    """Have the kernel run with `values`, which the file `path` also gives it at boot."""
    current = host.get_fact(Sysctl, keys=list(values))
    if all(current.get(name) == value for name, value in values.items()):
        host.noop("kernel as declared")
        return
    yield StringCommand("sysctl --quiet --load", QuoteString(path))


@operation()
def live_table(table: str, path: str, unit: str) -> Commands:
    """Have the kernel's `table` as the file `path` makes it, which `unit` loads."""
    current = host.get_fact(RulesetState, table=table, path=path)
    if current.live and current.live == current.declared:
        host.noop(f"table {table} as declared")
        return
    yield or_journal(StringCommand("systemctl restart", unit), unit)
