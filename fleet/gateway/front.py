"""The gateways as one run of a deploy or a command reaches them: who gets requests, and who not."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

import gevent  # type: ignore[import-untyped]
from gevent.lock import BoundedSemaphore  # type: ignore[import-untyped]
from paramiko import SSHException
from pyinfra.api import Host, State, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.context import ctx_host, ctx_state

from fleet.declare.capability import Server
from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.facts import DrainedHosts, ServedServers
from fleet.gateway.files import (
    drained_file,
    idle_file,
    ready_servers,
    served_file,
    servers_of_before,
    without_requests,
)
from fleet.gateway.offered import alone, holders
from fleet.gateway.paths import GATEWAY_DIR, GATEWAY_DROPIN, GATEWAY_IDLE, GATEWAY_UNIT
from fleet.gateway.settings import Gateway
from fleet.gateway.traffic import LOOK, how_reloaded, traffic
from fleet.kit.commands import Commands
from fleet.kit.connection.careful import Careful
from fleet.kit.connection.lock import who
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.files import install_files
from fleet.kit.nested import ask, carry_out, trouble
from fleet.kit.paths import STAGE
from fleet.kit.units import run_unit

# A request that an old worker had accepted may not have a connection to its host yet.
_QUIET_LOOKS = 3
# With all that the configuration in place includes; not every `cp -n` says that all is well. What
# was found in a file's place lies there as a folder.
_CHECK = StringCommand(
    f"for f in {GATEWAY_DIR}/*; do",
    '[ -e "${f##*/}" ] || ! [ -f "$f" ] || cp "$f" . || exit 1; done;',
    'nginx -t -q -c "$PWD/nginx.conf"',
)


_READY: WeakKeyDictionary[State, set[str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Change:
    """What is to be another way: `drained` of a host, or `served` of its servers."""

    gpu: FleetHost
    drained: bool | None = None
    served: bool | None = None


class AtWorkError(FleetError):
    """Another run is at work at a gateway, and may change it at any moment."""


class Door:
    """One gateway. Whatever asks for a change at the same time gets it by one reload."""

    def __init__(self, state: State, fleet: Fleet, me: FleetHost) -> None:
        self.me = me
        self.host: Host = state.inventory.get_host(me.name)
        self._state, self._fleet = state, fleet
        # To who drained it, and when.
        self._drained: dict[str, str] = {}
        self._served: frozenset[str] | None = None
        self._asked: list[Change] = []
        self._turn = BoundedSemaphore()

    def look(self) -> None:
        """Learn whom it serves.

        Raises:
            AtWorkError: another run is at work there.
            FleetError: it cannot be reached.
        """
        self._connect()
        with ctx_state.use(self._state), ctx_host.use(self.host):
            drained: dict[str, str] = self.host.get_fact(DrainedHosts)
            served: tuple[str, ...] | None = self.host.get_fact(ServedServers)
        if isinstance(self.host.connector, Careful) and self.host.connector.lost:
            raise FleetError(f"{self.me.name}: {self.host.connector.lost}")
        self._drained = drained
        self._served = None if served is None else ready_servers(self._fleet, served)

    def _connect(self) -> None:
        if leads_elsewhere(self._state) and not self.host.connected:
            # Its name would lead to the host that the run is about, and be changed there.
            raise FleetError(f"{self.me.name}: --data ssh_hostname leads every host to one address")
        if self.host in self._state.failed_hosts and not self.host.connected:
            raise FleetError(f"{self.me.name}: no connection: {trouble(self.host)}")
        try:
            self.host.connect(show_errors=False, raise_exceptions=True)
            connector = self.host.connector
            other = ""
            if isinstance(connector, Careful) and not connector.holds:
                other = connector.hold()
        except ConnectError as error:
            raise FleetError(f"{self.me.name}: no connection: {error}") from None
        except (OSError, SSHException) as error:
            raise FleetError(f"{self.me.name}: it cannot be locked: {error}") from None
        if other:
            raise AtWorkError(f"{self.me.name}: another deploy is at work there: by {other}")

    @property
    def is_deployed(self) -> bool:
        """Whether there is a gateway yet."""
        return self._served is not None

    @property
    def drained(self) -> frozenset[str]:
        """The hosts that an operator keeps it from sending requests to."""
        return frozenset(self._drained)

    def sends_to(self, gpu: FleetHost) -> bool:
        """Whether a server of `gpu` gets requests."""
        return gpu.name in {item.host.name for item in self.serving()}

    def serves_wholly(self, gpu: FleetHost) -> bool:
        """Whether every server of `gpu` was found ready, and not stopped since."""
        return _names(self._fleet, gpu) <= self._ready()

    def in_service(self) -> set[str]:
        """The hosts of ours that get requests."""
        return {item.host.name for item in self.serving() if item.ours}

    def serving(self) -> list[Server]:
        """The servers that get requests, each for its own models."""
        ready = self._ready()
        return [
            item
            for item in self._fleet.servers()
            if (item.name in ready or not item.ours) and item.host.name not in self._drained
        ]

    def _ready(self) -> frozenset[str]:
        assert self._served is not None, f"{self.me.name} was not looked at"
        return self._served

    def change(self, change: Change) -> None:
        """Have `change` in force, and on the gateway's disk.

        Raises:
            FleetError: it could not be made.
        """
        self._asked.append(change)
        with self._turn:
            asked, self._asked = self._asked, []
            drained, served = dict(self._drained), set(self._ready())
            for item in asked:
                if item.drained:
                    drained.setdefault(item.gpu.name, _by_us())
                elif item.drained is not None:
                    drained.pop(item.gpu.name, None)
                _put(served, _names(self._fleet, item.gpu), item.served)
            if drained != self._drained or served != self._ready():
                self._write(drained, served)
            if change not in asked and not self._has(change):
                raise FleetError(f"{self.me.name}: it could not be changed for {change.gpu.name}")

    def _has(self, change: Change) -> bool:
        names = _names(self._fleet, change.gpu)
        is_served = names <= self._ready() if change.served else not names & self._ready()
        return (
            change.drained is None or (change.gpu.name in self._drained) is change.drained
        ) and (change.served is None or is_served)

    def _write(self, drained: dict[str, str], served: Collection[str]) -> None:
        idle = without_requests(self._fleet, drained, served)
        files = [drained_file(drained), served_file(served), idle_file(idle)]
        with ctx_state.use(self._state), ctx_host.use(self.host):
            if not self.host.get_fact(FileStates, paths=[GATEWAY_IDLE]):
                files.append(servers_of_before(self._fleet, idle))
        written = install_files._inner(files=files, check=_CHECK, stage=f"{STAGE}-servers")
        reloaded = run_unit._inner(
            unit=GATEWAY_UNIT, files=[GATEWAY_DROPIN], reload=how_reloaded(self.me)
        )
        self._carry_out(written)
        # Also where nginx does not load it: whoever puts it right has to begin from the files.
        self._drained, self._served = drained, frozenset(served)
        self._carry_out(reloaded)

    def _carry_out(self, commands: Commands) -> None:
        if said := carry_out(self._state, self.host, commands):
            raise FleetError(f"{self.me.name}: {said}")

    def in_flight(self, gpu: FleetHost) -> int:
        """How many requests the servers of `gpu` have from it.

        Raises:
            FleetError: it does not tell.
        """
        try:
            found = traffic(ask(self._state, self.host, LOOK, 60))
        except LookupError as error:
            raise FleetError(f"{self.me.name}: {error}") from None
        if found is None:
            raise FleetError(f"{self.me.name}: nginx does not tell its requests in flight")
        return found.to(item for item in self._fleet.servers() if item.host.name == gpu.name)


def leads_elsewhere(state: State) -> bool:
    """Whether the command line says where hosts are: each that is not connected, too."""
    return "ssh_hostname" in state.inventory.get_override_data()  # type: ignore[no-untyped-call]


def found_ready(state: State) -> set[str]:
    """The GPU hosts that this run has found ready, for gateways that it makes after them."""
    return _READY.setdefault(state, set())


class Front:
    """All gateways of the fleet that can be reached; `missing` says why others are not there.

    Those in `bare` no deploy has made yet: they serve nobody. Those of `taken`, where another run
    is at work, serve whomever that one lets them: it says who that is.
    """

    def __init__(self, state: State, fleet: Fleet) -> None:
        self._fleet = fleet
        self.doors: list[Door] = []
        self.bare: list[Door] = []
        self.missing: dict[str, str] = {}
        self.taken: dict[str, str] = {}
        self._out: set[str] = set()
        for me in fleet.running(Gateway):
            self._look_at(Door(state, fleet, me))

    def _look_at(self, door: Door) -> None:
        try:
            door.look()
        except AtWorkError as error:
            self.taken[door.me.name] = str(error)
        except FleetError as error:
            self.missing[door.me.name] = str(error).removeprefix(f"{door.me.name}: ")
        else:
            (self.doors if door.is_deployed else self.bare).append(door)

    def look_again(self) -> None:
        """See whether gateways were made since: `pyinfra --serial` ends a host before the next."""
        bare, self.bare = self.bare, []
        for door in bare:
            self._look_at(door)

    def sends_to(self, gpu: FleetHost) -> bool:
        """Whether `gpu` gets requests from any gateway."""
        return any(door.sends_to(gpu) for door in self.doors)

    def serves_wholly(self, gpu: FleetHost) -> bool:
        """Whether every gateway has all servers of `gpu` for ready."""
        return all(door.serves_wholly(gpu) for door in self.doors)

    def leaves_out(self, gpu: FleetHost) -> bool:
        """Whether a gateway has not all servers of `gpu` for ready, and no operator drained it."""
        return not self.serves_wholly(gpu) and not any(
            gpu.name in door.drained for door in self.doors
        )

    def change(self, change: Change) -> None:
        """Have `change` in force at every gateway.

        Raises:
            FleetError: it could not be made at one of them.
        """
        for door in self.doors:
            door.change(change)
        if change.served:
            self._out.discard(change.gpu.name)

    def without_another(self, gpu: FleetHost) -> dict[str, list[str]]:
        """The gateways that have nobody else to send requests for some models to, and for which."""
        found = {}
        for door in self.doors:
            left = [item for item in door.serving() if item.host.name not in self._out]
            if door.sends_to(gpu) and (models := alone(self._fleet, gpu, left)):
                found[door.me.name] = models
        return found

    def leave(self, gpu: FleetHost) -> dict[str, list[str]]:
        """Count on `gpu` no more until it is served again, unless gateways have nobody else.

        Those come back, with the models. No gateway is told yet. Whoever asks next knows of it:
        nothing is waited for in between.
        """
        if not (lonely := self.without_another(gpu)):
            self._out.add(gpu.name)
        return lonely

    def most_at_once(self) -> int:
        """How many hosts may be out at once, that none is the last which answers for a model.

        What one host alone has is of no account: it is never out for others to answer.
        """
        numbers = [
            len({item.host.name for item in servers})
            for door in self.doors
            for servers in holders(door.serving()).values()
        ]
        return min((number - 1 for number in numbers if number > 1), default=1)

    def wait_until_idle(self, gpu: FleetHost, timeout: float, say: Callable[[str], None]) -> None:
        """Wait until no gateway has a request at `gpu`.

        Raises:
            FleetError: some are still there after `timeout` seconds.
        """
        end = time.monotonic() + timeout
        quiet, shown = 0, -1
        while quiet < _QUIET_LOOKS:
            active = sum(door.in_flight(gpu) for door in self.doors)
            quiet = 0 if active else quiet + 1
            if active and active != shown:
                say(f"{gpu.name}: {active} requests in flight")
                shown = active
            if active and time.monotonic() > end:
                raise FleetError(f"{gpu.name}: {active} requests still run after {timeout:.0f} s")
            gevent.sleep(1)


def no_other_host(lonely: Mapping[str, Sequence[str]]) -> str:
    """What gateways would lack, in an operator's words; each with its models."""
    return "; ".join(
        f"{name} would have no other host to send requests for {', '.join(models)} to"
        for name, models in lonely.items()
    )


def _names(fleet: Fleet, gpu: FleetHost) -> set[str]:
    """The servers of `gpu` that a deploy makes ready: none of what is not ours."""
    return {item.name for item in fleet.servers() if item.host.name == gpu.name and item.ours}


def _by_us() -> str:
    return f"by {who()} since {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def _put(names: set[str], some: Iterable[str], to: bool | None) -> None:
    """Have `some` among `names`, or none of them; None leaves all as it is."""
    if to is not None:
        (names.update if to else names.difference_update)(some)
