"""Many hosts asked at the same time, with a deadline for all of them together."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

import gevent  # type: ignore[import-untyped]
from paramiko import SSHException
from pyinfra import logger
from pyinfra.api import Host, State
from pyinfra.api.exceptions import PyinfraError
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.sshuserclient import config as ssh_config
from pyinfra.context import ctx_host

from fleet.kit.connection.careful import Careful
from fleet.kit.errors import FleetError

AT_ONCE = 64  # hosts: a thread, an event loop and a connection each
_THREAD = "asks "  # what the names of these threads begin with

# gevent's own starts processes from the main thread alone: for `Match exec` in ~/.ssh/config.
ssh_config.check_call = subprocess.check_call

Answer = TypeVar("Answer")


def asked_together(
    state: State, hosts: Iterable[Host], ask: Callable[[Host], Answer], deadline: float
) -> dict[str, Answer | FleetError]:
    """Each host's name, in the order given, to what `ask` returned for it, or why it did not.

    `ask` is called in threads, connected and as `ctx_host`, and reads only: `host.get_fact(...)`,
    `host.run_shell_command(...)`. What it raises of pyinfra's errors is that host's answer, and so
    is a fact that could not be read. Whatever else it raises is a fault, and is raised.

    After `deadline` seconds, hosts that have not answered are left alone: what still waits for
    them ends with the process. Connections that this makes, it ends.
    """
    return _Round(state, list(hosts), ask, time.monotonic() + deadline).answers(deadline)


class _Round(Generic[Answer]):
    """Hosts that are asked the same, until the monotonic time `end`."""

    def __init__(
        self, state: State, hosts: list[Host], ask: Callable[[Host], Answer], end: float
    ) -> None:
        self._state, self._hosts, self._ask, self._end = state, hosts, ask, end
        self._todo: SimpleQueue[Host] = SimpleQueue()
        self._heard: SimpleQueue[tuple[Host, Answer | Exception]] = SimpleQueue()
        self._is_over = threading.Event()

    def answers(self, deadline: float) -> dict[str, Answer | FleetError]:
        """Ask, and wait."""
        try:
            self._start_threads([host for host in self._hosts if _is_over_ssh(host)])
            self._ask_here([host for host in self._hosts if not _is_over_ssh(host)])
            found = self._collect()
        finally:
            self._is_over.set()
        late = FleetError(f"no answer within {deadline:g} s")
        return {host.name: found.get(host, late) for host in self._hosts}

    def _start_threads(self, hosts: Sequence[Host]) -> None:
        for host in hosts:
            self._todo.put(host)
        for number in range(min(len(hosts), AT_ONCE)):
            name = f"{_THREAD}{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while not self._is_over.is_set():
            try:
                self._hear(self._todo.get_nowait())
            except Empty:
                break
        # pyinfra's reading of a command's output made one for this thread; it would outlive it.
        gevent.get_hub().destroy(destroy_loop=True)

    def _ask_here(self, hosts: Sequence[Host]) -> None:
        """Ask hosts whose connector starts processes here, which gevent does in this thread."""
        greenlets = [gevent.spawn(self._hear, host) for host in hosts]
        gevent.joinall(greenlets, timeout=self._left())
        gevent.killall(greenlets, block=False)

    def _hear(self, host: Host) -> None:
        try:
            self._heard.put((host, _answer(self._state, host, self._ask)))
        except Exception as error:
            self._heard.put((host, error))

    def _collect(self) -> dict[Host, Answer | FleetError]:
        found: dict[Host, Answer | FleetError] = {}
        while len(found) < len(self._hosts):
            try:
                host, answer = self._heard.get(timeout=self._left())
            except Empty:
                break
            if isinstance(answer, Exception) and not isinstance(answer, FleetError):
                raise answer
            found[host] = answer
        return found

    def _left(self) -> float:
        return max(0, self._end - time.monotonic())


def _is_over_ssh(host: Host) -> bool:
    return isinstance(host.connector, SSHConnector)


def _answer(state: State, host: Host, ask: Callable[[Host], Answer]) -> Answer | FleetError:
    was_connected = host.connected
    state.failed_hosts.discard(host)
    with ctx_host.use(host):
        try:
            host.connect(show_errors=False, raise_exceptions=True)
            answer = ask(host)
        except (PyinfraError, OSError, SSHException) as error:
            return FleetError(_reason(state, host, error))
        finally:
            if host.connected and not was_connected:
                host.disconnect()
    # Without a deploy, no host is active, and pyinfra raises; with active ones it goes on without.
    return FleetError(_trouble(host)) if host in state.failed_hosts else answer


def _reason(state: State, host: Host, error: Exception) -> str:
    """Why there is no answer; the host's name is not said twice."""
    if host in state.failed_hosts:
        return _trouble(host)
    words = " ".join(str(part) for part in error.args) or type(error).__name__
    return words.removeprefix(f"{host.name}: ")


def _trouble(host: Host) -> str:
    """The last line of what the last command that failed wrote."""
    connector = host.connector
    lines = connector.trouble.splitlines() if isinstance(connector, Careful) else []
    return lines[-1].removeprefix(f"{host.name}: ") if lines else "a fact could not be read"


def _is_others(record: logging.LogRecord) -> bool:
    return not (record.threadName or "").startswith(_THREAD)


# What pyinfra says of a host while it is asked is in its answer; it is not printed as well.
logger.addFilter(_is_others)
