"""What a step of one host does on another one, or has to see the end of before it goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pyinfra.api import Host, State, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.context import ctx_host, ctx_state

from fleet.kit.connection.careful import Careful


def carry_out(state: State, host: Host, commands: Iterable[StringCommand]) -> str:
    """Run on `host`, now, what an operation yields there, up to the first command that fails.

    What that one wrote to standard error, or why there is no connection; empty when all went well.
    """
    with ctx_state.use(state), ctx_host.use(host):
        for command in commands:
            ok, output = command.execute(state, host, _as_root(state, host))
            if not ok:
                return output.stderr.strip() or trouble(host) or f"failed: {command}"
    return ""


def ask(state: State, host: Host, command: StringCommand, timeout: int | None = None) -> list[str]:
    """The lines that `command` prints on `host` within `timeout` seconds.

    Raises:
        LookupError: it failed; the message is what it wrote to standard error.
    """
    with ctx_state.use(state), ctx_host.use(host):
        arguments = {**_as_root(state, host), "_timeout": timeout}
        ok, output = host.run_shell_command(command, **arguments)
    if not ok:
        raise LookupError(output.stderr.strip() or trouble(host) or f"failed: {command}")
    lines: list[str] = output.stdout_lines
    return lines


def trouble(host: Host) -> str:
    """Why the host's connection is of no use, or what the last command that failed wrote."""
    return host.connector.trouble if isinstance(host.connector, Careful) else ""


def _as_root(state: State, host: Host) -> Any:
    """How commands become root on this host: what its inventory says of sudo and su."""
    arguments: Any = pop_global_arguments(state, host, {})[0]
    return {key: arguments[key] for key in CONNECTOR_ARGUMENT_KEYS if key in arguments}
