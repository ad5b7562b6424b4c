"""testinfra over pyinfra's own connectors: one open connection a host, whatever the connector."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
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

from .doors import why_no_door
from .outcomes import NotCheckedError
from .redaction import secret_words

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
    """The inventory's hosts, connected when first used, and asked each fact once."""

    def __init__(self, inventory_path: Path) -> None:
        self._path = inventory_path
        self._state, self.fleet = open_inventory(inventory_path, CAPABILITIES)
        self._unreached: dict[str, str] = {}
        self._doors: dict[str, str] = {}
        self._facts: dict[tuple[Any, ...], Any] = {}

    @cached_property
    def secret_words(self) -> tuple[str, ...]:
        """What must be in nothing that is said: the secrets that the fleet has by now."""
        return secret_words(self.fleet.secrets)

    def host(self, name: str) -> Host:
        """The pyinfra host `name`, connected.

        Raises:
            NotCheckedError: it does not answer; the message says why.
        """
        if reason := self.why_unreached(name):
            raise NotCheckedError(f"{name}: {reason}")
        return self._state.inventory.get_host(name)

    def why_unreached(self, name: str) -> str:
        """Why nobody can look into the host `name`, which is tried once; empty when one can."""
        host = self._state.inventory.get_host(name)
        if name not in self._unreached:
            self._unreached[name] = self._connect(host)
        return self._unreached[name]

    def why_no_door(self, gateway: FleetHost) -> str:
        """Why clients do not reach `gateway`, which is tried once; empty when they do."""
        if gateway.name not in self._doors:
            self._doors[gateway.name] = why_no_door(self.fleet, gateway, str(self._path))
        return self._doors[gateway.name]

    def fact(self, host: Host, fact: type, arguments: Mapping[str, Any], *, fresh: bool) -> Any:
        """A fact of a connected host; the answer is kept for whoever asks the same."""
        key = (host.name, fact, repr(sorted(arguments.items())))
        if fresh or key not in self._facts:
            with ctx_host.use(host):
                self._facts[key] = host.get_fact(fact, **arguments)
        return self._facts[key]

    def close(self) -> None:
        """Close every connection that was opened."""
        for host in self._state.inventory:
            if host.connected:
                host.disconnect()

    def _connect(self, host: Host) -> str:
        try:
            host.connect(show_errors=False, raise_exceptions=True)
        except ConnectError as error:
            return str(error)
        if not host.connected:
            return "no connection"
        self._state.activate_host(host)
        return ""


class Target:
    """One host under test: what is declared for it, and two ways to ask it."""

    def __init__(self, connections: Connections, declared: FleetHost) -> None:
        self.declared = declared
        self.fleet = connections.fleet
        self.connections = connections
        self._host = connections.host(declared.name)
        self.testinfra = TestinfraHost(PyinfraBackend(self._host))

    def fact(self, fact: type, *, fresh: bool = False, **arguments: Any) -> Any:
        """A pyinfra fact of this host; the deploy decides by the same ones.

        It is asked once in a run, and each time with `fresh`: of what changes while it is checked.
        """
        return self.connections.fact(self._host, fact, arguments, fresh=fresh)

    def need_door(self) -> None:
        """Go on only if clients reach this gateway.

        Raises:
            NotCheckedError: they do not; the message says why.
        """
        if reason := self.connections.why_no_door(self.declared):
            raise NotCheckedError(reason)

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
