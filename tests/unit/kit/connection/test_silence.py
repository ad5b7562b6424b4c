"""A watched connection, over real SSH transports: only silence ends it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paramiko import RSAKey, ServerInterface, Transport

from fleet.kit.connection import silence
from fleet.kit.connection.silence import Watch


class Server(ServerInterface):
    """Lets everybody in; refuses each question that is asked of the connection, as sshd does."""

    def check_auth_none(self, username: str) -> int:
        return 0

    def get_allowed_auths(self, username: str) -> str:
        return "none"


class Cable:
    """What lies between the two: it can be cut, and then neither side is told."""

    def __init__(self) -> None:
        self.is_cut = threading.Event()
        self.ends = socket.socketpair(), socket.socketpair()
        for one, other in ((0, 1), (1, 0)):
            threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: int, other: int) -> None:
        with contextlib.suppress(OSError):
            while data := self.ends[one][1].recv(65536):
                if not self.is_cut.is_set():
                    self.ends[other][1].sendall(data)

    def close(self) -> None:
        for end in (*self.ends[0], *self.ends[1]):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate(2048)


@pytest.fixture
def cable() -> Cable:
    return Cable()


@pytest.fixture
def client(cable: Cable, key: RSAKey) -> Iterator[Transport]:
    server = Transport(cable.ends[1][0])
    server.add_server_key(key)
    server.start_server(threading.Event(), Server())
    client = Transport(cable.ends[0][0])
    client.start_client(timeout=10)
    client.auth_none("ops")
    yield client
    client.close()
    server.close()
    cable.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "INTERVAL", 0.2)
    monkeypatch.setattr(silence, "PATIENCE", 2)


class Ears:
    """How often the other end was heard, and whether it was given up."""

    def __init__(self, give_up: Callable[[], None]) -> None:
        self.heard = 0
        self.thrice, self.given_up = threading.Event(), threading.Event()
        self._give_up = give_up

    def alive(self) -> None:
        self.heard += 1
        if self.heard >= 3:
            self.thrice.set()

    def silent(self) -> None:
        self._give_up()
        self.given_up.set()


def test_an_answering_host_is_kept(client: Transport) -> None:
    ears = Ears(client.close)
    watch = Watch(client, alive=ears.alive, silent=ears.silent)
    assert ears.thrice.wait(10)
    watch.end()
    assert not ears.given_up.is_set()
    assert client.is_active()


def test_a_silent_host_is_given_up(client: Transport, cable: Cable) -> None:
    ears = Ears(client.close)
    Watch(client, alive=ears.alive, silent=ears.silent)
    assert ears.thrice.wait(10)
    cable.is_cut.set()
    assert ears.given_up.wait(10)
    assert not client.is_active()


def test_an_old_watch_does_not_end_a_new_connection(client: Transport, cable: Cable) -> None:
    """After a reboot of ours: the question to the old connection has no answer."""
    ears = Ears(client.close)
    watch = Watch(client, alive=ears.alive, silent=ears.silent)
    assert ears.thrice.wait(10)
    cable.is_cut.set()
    time.sleep(0.5)
    watch.end()
    assert not ears.given_up.wait(4)


# As while pyinfra waits for an answer at the terminal: nothing else in its process runs.
_STANDS_STILL = """
from gevent import monkey
monkey.patch_all()
import runpy, sys, threading, time
from gevent.monkey import get_original
from paramiko import RSAKey, Transport
from fleet.kit.connection import silence
silence.INTERVAL, silence.PATIENCE = 0.2, 2
test = runpy.run_path(sys.argv[1])
cable = test["Cable"]()
server = Transport(cable.ends[1][0])
server.add_server_key(RSAKey.generate(2048))
server.start_server(threading.Event(), test["Server"]())
client = Transport(cable.ends[0][0])
client.start_client(timeout=10)
client.auth_none("ops")
ears = test["Ears"](client.close)
silence.Watch(client, alive=ears.alive, silent=ears.silent)
ears.thrice.wait(10)
ask = client.global_request
def stand_still(*words, **options):
    time.sleep(0.3)  # until it is waited for
    get_original("time", "sleep")(4)
    return ask(*words, **options)
client.global_request = stand_still
before = ears.heard
time.sleep(10)
print(client.is_active(), ears.given_up.is_set(), ears.heard > before)
"""


def test_a_process_that_stood_still_takes_nobody_for_silent() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _STANDS_STILL, __file__],
        cwd=Path(__file__).parents[4], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout == "True False True\n", done.stderr
