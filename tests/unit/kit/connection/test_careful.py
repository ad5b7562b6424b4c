"""A connector behind `careful`: one prefix, an end to every wait, and no exception."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from paramiko import ChannelException, SSHException
from pyinfra.api import Config, Host, State, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.inventory import Inventory
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector

from fleet.kit.connection import careful as module
from fleet.kit.connection.careful import Careful, careful
from fleet.kit.connection.lock import NO_SESSION
from fleet.kit.errors import FleetError


class Broken(LocalConnector):
    """A connector whose connection ends in a way of its own, over and over."""

    error: Exception = OSError()

    def connect(self) -> None:
        raise self.error

    def run_shell_command(self, *_: Any, **__: Any) -> Any:
        raise self.error

    def put_file(self, *_: Any, **__: Any) -> bool:
        raise self.error

    def get_file(self, *_: Any, **__: Any) -> bool:
        raise self.error


def host_over(connector: type) -> Host:
    """This machine as a host that is reached so, in the middle of a run."""
    inventory = Inventory((["@local"], {}))
    State(inventory, Config()).is_executing = True
    host = inventory.get_host("@local")
    host.connector = careful(connector)(host.state, host)
    return host


@pytest.fixture
def local() -> Host:
    return host_over(LocalConnector)


@pytest.fixture
def hostile_login(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a login may bring, as far as it needs no other host."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("hostile_login")
@pytest.mark.parametrize("kind", [str, StringCommand])
def test_every_command_runs_under_one_prefix(local: Host, kind: Any) -> None:
    """A text, as testinfra's, and a StringCommand, as a fact's or an operation's."""
    ok, output = local.run_shell_command(kind('echo "$LC_ALL"; umask; echo "$PATH"'))
    assert ok
    locale, umask, path = output.stdout_lines
    assert (locale, umask) == ("C", "0022")
    assert {"/usr/local/sbin", "/usr/sbin", "/sbin"} <= set(path.split(":"))


def test_status_and_output_are_the_commands_own(local: Host) -> None:
    ok, output = local.run_shell_command("echo out; echo err >&2; false")
    assert (ok, output.stdout, output.stderr) == (False, "out", "err")
    assert local.connector.trouble == "err"
    assert local.run_shell_command("cat", _stdin="in")[1].stdout == "in"


def test_command_without_an_end_is_ended(local: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEP_DEADLINE", 1)
    ok, output = local.run_shell_command("sleep 30")
    assert not ok
    assert output.stderr == "@local: a command did not end within 1 s; it may go on by itself"
    # What that command still does is not known: the host is of no more use to this run.
    assert local.run_shell_command("true") == (False, output)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("no route"), "no route"),
        (EOFError(), "EOFError"),
        (SSHException("no answer"), "no answer"),
        (ChannelException(2, "Connect failed"), NO_SESSION),
    ],
)
def test_loss_is_an_answer(error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pyinfra lets some of these end the run of all hosts, and says nothing of others."""
    monkeypatch.setattr(Broken, "error", error)
    ok, output = host_over(Broken).run_shell_command("true")
    assert (ok, output.stderr) == (False, f"@local: the connection was lost: {words}")
    assert host_over(Broken).put_file("a", "b") is False
    assert host_over(Broken).get_file("a", "b") is False


def test_loss_ends_a_plan() -> None:
    """A question that has no answer is not answered by its default."""
    host = host_over(Broken)
    host.state.is_executing = False
    for _ in range(2):
        with pytest.raises(FleetError, match="@local: the connection was lost: OSError"):
            host.run_shell_command("true")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectError("no such host"), "no such host"),
        (TimeoutError(), "no answer to the login within 60 s"),
        (KeyError("key"), "key"),
        (EOFError(), "EOFError"),
    ],
)
def test_no_connection_is_one_kind_of_error(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Broken, "error", error)
    host = host_over(Broken)
    with pytest.raises(ConnectError) as refused:
        host.connector.connect()
    assert refused.value.args == (words,)
    assert host.connector.trouble == words


def test_a_connector_stays_what_it_is() -> None:
    assert issubclass(careful(SSHConnector), (SSHConnector, Careful))
    assert careful(SSHConnector) is careful(SSHConnector)
