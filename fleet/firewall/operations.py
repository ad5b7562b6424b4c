"""The live ruleset, which is kept only when one can still log in."""

from __future__ import annotations

import secrets
from typing import Any

import gevent  # type: ignore[import-untyped]
from paramiko import SSHException
from pyinfra import host, state
from pyinfra.api import Host, QuoteString, StringCommand, operation
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS
from pyinfra.api.exceptions import ConnectError

from fleet.firewall.facts import RulesetState
from fleet.kit.commands import Commands, fail
from fleet.kit.facts.files import FileStates
from fleet.kit.files import ManagedFile, show_diff


@operation()
def apply_ruleset(
    ruleset: ManagedFile,
    table: str,
    guard: str,
    confirm_within: float,
    login_port: int | None = None,
) -> Commands:
    """Have the kernel's `table` equal `ruleset`, now and at boot, whoever changed it since.

    The host tries the new rules for `confirm_within` seconds and then puts the old ones back, by
    itself, unless it is told to keep them over a connection that was opened under the new rules.
    Until then the file that is loaded at boot stays as it was. Who is logged in on `login_port`, as
    this deploy is, stays so for the trial, and can put the old rules back.
    """
    kept = host.get_fact(FileStates, paths=[ruleset.path]).get(ruleset.path)
    current = host.get_fact(RulesetState, table=table, path=ruleset.path)
    if kept == ruleset.state and current.live and current.live == current.declared:
        host.noop(f"table {table} as declared")
        return
    if state.config.DIFF:
        show_diff(ruleset)
    token = secrets.token_hex(8)
    yield StringCommand(
        QuoteString(guard),
        f"try {token} {confirm_within:.0f} {login_port or ''}".rstrip(),
        _stdin=ruleset.text.splitlines(),
    )
    problem = run_anew(host, StringCommand(QuoteString(guard), "confirm", token), confirm_within)
    if problem is not None:
        yield fail(_put_back(guard, problem, confirm_within))


@operation()
def remove_ruleset(table: str, path: str) -> Commands:
    """Have no `table`; nobody else's rules are touched."""
    if host.get_fact(RulesetState, table=table, path=path).live:
        yield StringCommand("nft delete table", table)


def _put_back(guard: str, problem: str, confirm_within: float) -> str:
    """Put the old rules back over the connection that is still there; what to tell the operator."""
    try:
        ok, _ = host.run_shell_command(StringCommand(QuoteString(guard), "revert"), **_arguments())
    except (OSError, SSHException):
        ok = False
    outcome = (
        "the old rules are back"
        if ok
        else f"the host puts the old rules back by itself within {confirm_within:.0f} s"
    )
    return (
        f"{host.name}: under the new firewall rules no new login from this machine succeeded "
        f"({problem}); {outcome}, and nothing of the new ones was kept. Check that "
        "firewall_ssh_from holds this machine's address as the host sees it, and ssh_port the "
        "port; and where the login comes through a tunnel that ends on the host, that "
        "firewall_open_udp, firewall_open_protocols or firewall_open_tcp open what carries it"
    )


def run_anew(host: Host, command: StringCommand, timeout: float) -> str | None:
    """Run `command` over a second connection of the host's own kind; why it failed, or None."""
    connection = type(host.connector)(host.state, host)
    try:
        # The host's time runs already: an answer after its end is none.
        with gevent.Timeout(timeout, TimeoutError(f"no connection within {timeout:.0f} s")):
            connection.connect()
            try:
                ok, output = connection.run_shell_command(command, **_arguments())
            finally:
                connection.disconnect()
    except (ConnectError, OSError, SSHException) as error:
        return " ".join(str(part) for part in error.args) or type(error).__name__
    return None if ok else output.stderr.strip() or "it said nothing"


def _arguments() -> Any:
    """How commands of the current operation are run: sudo, shell, environment."""
    arguments = dict(host.current_op_global_arguments or {})
    return {key: arguments[key] for key in CONNECTOR_ARGUMENT_KEYS if key in arguments}
