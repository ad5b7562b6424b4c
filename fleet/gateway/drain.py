"""Take a GPU host out of service without cutting off anybody, and bring it back warm."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from pyinfra.api import Host, QuoteString, State, StringCommand
from pyinfra.api.connect import connect_all, disconnect_all
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.operation import add_op
from pyinfra.api.operations import run_ops
from pyinfra.context import ctx_host

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.facts import DrainedHosts, OpensslVersion
from fleet.gateway.files import config_files, drained_file, health_origin, loaded_files
from fleet.gateway.paths import GATEWAY_DROPIN, GATEWAY_UNIT
from fleet.gateway.settings import Gateway
from fleet.kit.durations import seconds
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.files import install_files
from fleet.kit.on_host.outside import FormError, parsed
from fleet.kit.run import locked
from fleet.kit.units import run_unit
from fleet.models.choice import choose, resolve
from fleet.models.facts import HostMemory
from fleet.models.on_host.ollama_protocol import SHOWN, load_request
from fleet.ollama.models import is_auto
from fleet.ollama.servers import instances_of
from fleet.ollama.settings import Ollama
from fleet.platform.facts import HasIpv6

# A request that an old worker had accepted may not have a connection to its host yet.
_QUIET_LOOKS = 3
_Say = Callable[[str], None]


class Gateways:
    """The inventory's gateways, connected; each change is made on all of them."""

    def __init__(self, state: State, fleet: Fleet) -> None:
        self._state, self._fleet = state, fleet
        wanted = {host.name for host in fleet}
        for host in state.inventory:
            if host.name not in wanted:
                raise FleetError(f"{host.name}: not in the fleet")

    def __enter__(self) -> Gateways:
        """Connect, and refuse when a host does not answer: a drain holds everywhere or nowhere."""
        try:
            connect_all(self._state)
        except PyinfraError as error:
            raise FleetError(f"no host can be reached: {error}") from None
        down = [host.name for host in self._state.inventory if not host.connected]
        gateways = {gateway.name for gateway in self._fleet.running(Gateway)}
        if missing := sorted(gateways & set(down)):
            raise FleetError(f"{', '.join(missing)}: no connection, and every gateway is needed")
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        disconnect_all(self._state)

    def drained(self) -> dict[str, list[str]]:
        """Gateway to the GPU hosts that it sends nothing to."""
        return {g.name: self._fact(g.name, DrainedHosts) for g in self._fleet.running(Gateway)}

    def change(self, drained: Callable[[list[str]], list[str]]) -> None:
        """Have `drained(now)` as the drained hosts of each gateway, by one reload.

        Raises:
            FleetError: a deploy is at work on a gateway, or it runs what is not declared.
        """
        with locked(self._host(gateway.name) for gateway in self._fleet.running(Gateway)):
            self._change(drained)

    def _change(self, drained: Callable[[list[str]], list[str]]) -> None:
        for gateway in self._fleet.running(Gateway):
            now = self._fact(gateway.name, DrainedHosts)
            openssl = self._fact(gateway.name, OpensslVersion)
            self._need_deployed(gateway, openssl, now)
            then = sorted(drained(now))
            ipv6 = self._fact(gateway.name, HasIpv6)
            files = config_files(gateway, self._fleet, openssl, then, ipv6)
            host = self._host(gateway.name)
            add_op(
                self._state,
                install_files,
                files=[drained_file(then), *files],
                check=StringCommand('nginx -t -q -c "$PWD/nginx.conf"'),
                host=host,
            )
            add_op(
                self._state,
                run_unit,
                unit=GATEWAY_UNIT,
                files=[GATEWAY_DROPIN],
                reload_files=loaded_files(gateway),
                health_url=f"{health_origin(gateway)}/healthz",
                host=host,
            )
        self._state.config.FAIL_PERCENT = 0
        try:
            run_ops(self._state)
        except PyinfraError as error:
            raise FleetError(f"not changed on every gateway: {error}") from None
        gateways = {gateway.name for gateway in self._fleet.running(Gateway)}
        if failed := sorted(gateways & {host.name for host in self._state.failed_hosts}):
            raise FleetError(f"{', '.join(failed)}: not changed; see above")

    def wait_until_idle(self, gpu: FleetHost, timeout: float, say: _Say) -> None:
        """Wait until no gateway has a connection to `gpu`: after a reload, that is a request.

        Raises:
            FleetError: some are still there after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        quiet, shown = 0, -1
        while quiet < _QUIET_LOOKS:
            active = sum(
                self._connections(gateway, gpu) for gateway in self._fleet.running(Gateway)
            )
            quiet = 0 if active else quiet + 1
            if active and active != shown:
                say(f"{gpu.name}: {active} requests in flight")
                shown = active
            if time.monotonic() > end:
                raise FleetError(
                    f"{gpu.name}: {active} requests still run after {timeout:.0f} s; it gets no "
                    "new ones, run the command again to wait on"
                )
            time.sleep(1)

    def warm(self, gpu: FleetHost) -> None:
        """Load the first declared model in every server, so that nobody's request waits for it.

        Raises:
            FleetError: Ollama does not answer, or has not loaded it in its own time.
        """
        name = self._first_model(gpu)
        for item in instances_of(gpu):
            limit = round(seconds(item.settings.load_timeout)) * 2
            answer = self._post(gpu, f"{item.url}/api/show", {"model": name}, limit)
            try:
                shown = parsed(answer, SHOWN, f"{gpu.name}: {item.url}/api/show")
            except FormError as error:
                raise FleetError(f"{error}; is that Ollama? Use --cold to leave it out") from None
            path, body = load_request(name, shown)
            self._post(gpu, f"{item.url}{path}", body, limit)

    def _first_model(self, gpu: FleetHost) -> str:
        name = gpu[Ollama].model_names[0]
        choice = choose(self._fact(gpu.name, HostMemory)) if is_auto(name) else None
        resolved = resolve(name, choice)
        if resolved is None:
            raise FleetError(f"{gpu.name}: nvidia-smi does not tell what `auto` is; use --cold")
        return resolved

    def _post(self, gpu: FleetHost, url: str, body: dict[str, Any], limit: int) -> str:
        """What Ollama answers on its host within `limit` seconds."""
        call = StringCommand(
            f"curl -fsS --noproxy '*' --max-time {limit} -d",
            QuoteString(json.dumps({**body, "stream": False})),
            QuoteString(url),
        )
        return "".join(self._run(gpu.name, call, limit + 60))

    def _connections(self, gateway: FleetHost, gpu: FleetHost) -> int:
        lines = [
            line
            for item in instances_of(gpu)
            for line in self._run(
                gateway.name,
                StringCommand("ss -Htnp state established dst", QuoteString(str(item.endpoint))),
            )
        ]
        return sum('"nginx"' in line for line in lines)

    def _need_deployed(self, gateway: FleetHost, openssl: tuple[int, int], now: list[str]) -> None:
        ipv6 = self._fact(gateway.name, HasIpv6)
        files = config_files(gateway, self._fleet, openssl, now, ipv6)
        there = self._fact(gateway.name, FileStates, paths=[file.path for file in files])
        if [file.path for file in files if there.get(file.path) != file.state]:
            raise FleetError(
                f"{gateway.name}: what runs is not what is declared; run the deploy first, so that "
                "this changes nothing else"
            )

    def _host(self, name: str) -> Host:
        return self._state.inventory.get_host(name)

    def _fact(self, name: str, fact: type, **arguments: Any) -> Any:
        host = self._host(name)
        with ctx_host.use(host):
            return host.get_fact(fact, **arguments)

    def _run(self, name: str, command: StringCommand, timeout: int | None = None) -> list[str]:
        host = self._host(name)
        if not host.connected:
            raise FleetError(f"{name}: no connection")
        sudo = bool(host.data.get("_sudo"))
        ok, output = host.run_shell_command(command, _sudo=sudo, _timeout=timeout)
        if not ok:
            raise FleetError(f"{name}: {output.stderr or 'failed'}: {command}")
        lines: list[str] = output.stdout_lines
        return lines
