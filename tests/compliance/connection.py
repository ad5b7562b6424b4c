"""testinfra over pyinfra's own connectors: one open connection a host, whatever the connector."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

from pyinfra.api.arguments import ConnectorArguments
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.context import ctx_host
from testinfra.backend import base
from testinfra.host import Host as TestinfraHost

from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import FleetHost
from fleet.declare.open import open_inventory
from fleet.firewall.facts import Login, SshLogin

_EXIT_MARK = "llm-fleet-exit:"


def _login(host: Host) -> dict[str, Any]:
    """How commands become root on `host`: what its inventory says of sudo and su."""
    keys = (*get_type_hints(ConnectorArguments),)
    data = host.data.dict()
    return {key: data[key] for key in keys if key in data}


class PyinfraBackend(base.BaseBackend):
    """Runs testinfra's commands through a connected pyinfra host."""

    NAME = "pyinfra"

    def __init__(self, host: Host) -> None:
        super().__init__(host.name)
        self._pyinfra_host = host

    def run(self, command: str, *args: str, **_: Any) -> base.CommandResult:
        """Run `command`; pyinfra tells only success or failure, so the status is printed last."""
        line = self.get_command(command, *args)
        output = self._pyinfra_host.run_shell_command(
            f"{{ {line}\n}}; printf '\\n%s%s\\n' {_EXIT_MARK} $?", **_login(self._pyinfra_host)
        )[1]
        lines = output.stdout_lines
        if not lines or not lines[-1].startswith(_EXIT_MARK):
            said = output.stderr.strip() or "it did not end"
            raise RuntimeError(f"{self._pyinfra_host.name}: while running {line!r}: {said}")
        # The mark's own line feed leaves an empty line when the output ended with one.
        stdout = "\n".join(lines[:-1])
        return self.result(
            int(lines[-1].removeprefix(_EXIT_MARK)),
            line,
            stdout.encode(),
            "\n".join(output.stderr_lines).encode(),
        )


class Connections:
    """The inventory's hosts, connected when first used."""

    def __init__(self, inventory_path: Path) -> None:
        self._state, self.fleet = open_inventory(inventory_path, CAPABILITIES)

    def host(self, name: str) -> Host:
        """The pyinfra host `name`, connected.

        Raises:
            ConnectError: it does not answer; the message says why.
        """
        host = self._state.inventory.get_host(name)
        if not host.connected:
            host.connect(show_errors=False, raise_exceptions=True)
            if not host.connected:
                raise ConnectError(f"{name}: no connection")
            self._state.activate_host(host)
        return host

    def close(self) -> None:
        """Close every connection that was opened."""
        for host in self._state.inventory:
            if host.connected:
                host.disconnect()


class Target:
    """One host under test: what is declared for it, and two ways to ask it."""

    def __init__(self, connections: Connections, declared: FleetHost) -> None:
        self.declared = declared
        self.fleet = connections.fleet
        self._host = connections.host(declared.name)
        self.testinfra = TestinfraHost(PyinfraBackend(self._host))

    def fact(self, fact: type, **arguments: Any) -> Any:
        """A pyinfra fact of this host; the deploy decides by the same ones."""
        with ctx_host.use(self._host):
            return self._host.get_fact(fact, **arguments)

    def login(self) -> Login | None:
        """How these checks came in, as sshd sees it."""
        with ctx_host.use(self._host):
            found: Login | None = self._host.get_fact(SshLogin, _sudo=False)
        return found

    def run(self, command: str, *args: str, stdin: str | None = None) -> str:
        """Standard output of `command`, which must succeed; `args` are quoted into its `%s`."""
        if stdin is not None:
            ok, output = self._host.run_shell_command(command, **_login(self._host), _stdin=stdin)
            assert ok, output.stderr
            return str(output.stdout)
        return self.testinfra.check_output(command, *args)

    def journal(self, unit: str) -> str:
        """The end of a unit's journal, as evidence in a failing check."""
        lines = self.testinfra.run("journalctl --no-pager -o short-iso -n 25 -u %s", unit).stdout
        return f"\n--- journal of {unit} on {self.declared.name} ---\n{lines}"
