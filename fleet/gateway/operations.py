"""Certificates that a gateway fetches by itself, and what its kernel runs with."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.facts.server import Sysctl

from fleet.firewall.facts import RulesetState
from fleet.gateway.facts import AcmeNames
from fleet.gateway.paths import (
    ACME_HOOK,
    ACME_NAME,
    ACME_ROOT,
    GATEWAY_CERTIFICATE,
    GATEWAY_CERTIFICATE_KEY,
)
from fleet.kit.commands import Commands, or_journal
from fleet.kit.facts.files import FileStates


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
