"""Dify on a host: its release, its containers, and its settings inside."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pyinfra import host
from pyinfra.api import FunctionCommand, QuoteString, StringCommand, operation
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS

from fleet.dify.facts import DifyKeyPrints, DifyPending, DifyRelease
from fleet.dify.files import stack_sandbox
from fleet.dify.paths import (
    DIFY_CLIENT_CONFIG,
    DIFY_CLIENT_PROGRAM,
    DIFY_JOB,
    DIFY_KEYS,
    DIFY_PRISTINE,
    DIFY_SETUP_JOB,
    DIFY_STACK_CONFIG,
    DIFY_STACK_PROGRAM,
)
from fleet.kit.commands import Commands, fail, or_journal
from fleet.kit.errors import FleetError
from fleet.kit.facts.jobs import LoggedJob
from fleet.kit.jobs import newest_line, run_job, start_job
from fleet.kit.on_host.outside import FormError, parsed
from fleet.kit.releases import Tarball, fetch_release
from fleet.kit.secrets import SecretStore


@operation()
def fetch_dify(version: str, url: str, sha256: str, environment: Mapping[str, str]) -> Commands:
    """Have the release tarball at `url` unpacked in a directory of its version, and never touched.

    A tarball with another SHA-256 changes nothing. `environment` is what curl is told of a proxy.
    """
    if host.get_fact(DifyRelease, version=version) == sha256:
        host.noop(f"Dify {version} is there")
        return
    yield from fetch_release(
        f"llm-fleet-fetch-dify-{version}.service",
        Tarball(url, sha256, f"{DIFY_PRISTINE}/{version}"),
        environment,
        shown=f"Dify {version}",
    )


@operation()
def run_stack() -> Commands:
    """Have the declared release's containers up and well; an upgrade and a restore are of it."""
    # Killed at the backup before an upgrade, it must not leave Dify paused.
    after = f"ExecStopPost=/usr/bin/python3 {DIFY_STACK_PROGRAM} unpause {DIFY_STACK_CONFIG}"
    asked = {"program": DIFY_STACK_PROGRAM, "config": DIFY_STACK_CONFIG}
    yield from _have_done(DIFY_JOB, asked, "converge", "--property", QuoteString(after))


@operation()
def set_up_dify() -> Commands:
    """Have Dify's owner, plugin, models and sample apps as declared."""
    asked = {"program": DIFY_CLIENT_PROGRAM, "config": DIFY_CLIENT_CONFIG}
    yield from _have_done(DIFY_SETUP_JOB, asked, "setup")


def _have_done(unit: str, asked: dict[str, str], command: str, *options: Any) -> Commands:
    """Run `command` until `DifyPending` of what is `asked` is empty; `options` are of systemd-run.

    A run that is under way already may know older settings: what it leaves is done by another.
    """
    words = ("/usr/bin/python3", DIFY_STACK_PROGRAM, command, DIFY_STACK_CONFIG)
    start = start_job(unit, stack_sandbox(), *options, *words)
    pending: list[str] = host.get_fact(DifyPending, **asked)
    for _ in range(2):
        if not pending:
            host.noop("as declared")
            return
        for reason in pending:
            host.log(reason)
        yield from run_job(unit, start, lambda: host.get_fact(LoggedJob, unit=unit), newest_line)
        pending = host.get_fact(DifyPending, **asked)
    if pending:
        yield or_journal(fail(f"{host.name}: {'; '.join(pending)}"), unit)


@operation()
def keep_app_keys(store: SecretStore, names: dict[str, str]) -> Commands:
    """Have the sample apps' API keys in the secrets store too; `names` is role to its name there.

    Compared by their hashes. What is read from the host for the store is shown nowhere.
    """
    prints: dict[str, str] = host.get_fact(DifyKeyPrints)
    stored = {role: store.read(name) for role, name in names.items()}
    if all(
        value is not None and _print(value.get_secret_value()) == prints.get(role)
        for role, value in stored.items()
    ):
        host.noop("the keys are in the secrets store")
        return
    arguments = {
        key: value
        for key, value in dict(host.current_op_global_arguments or {}).items()
        if key in CONNECTOR_ARGUMENT_KEYS
    }
    yield FunctionCommand(_fetch_keys, (store, names, arguments), {})  # type: ignore[misc]


def _fetch_keys(store: SecretStore, names: dict[str, str], arguments: dict[str, Any]) -> None:
    ok, output = host.run_shell_command(
        StringCommand("cat", DIFY_KEYS), print_output=False, print_input=False, **arguments
    )
    try:
        values = parsed(output.stdout, {...: str}, DIFY_KEYS) if ok else {}
    except FormError as error:
        # Nothing of it is shown: it is of secrets.
        place = str(error).partition(" is ")[0]
        raise FleetError(f"{host.name}: {place} is not as Dify's set-up writes it") from None
    for role, name in names.items():
        if role not in values:
            raise FleetError(f"{host.name}: {DIFY_KEYS} has no key of the {role} app")
        store.replace(name, values[role])


def _print(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
