"""pyinfra's connectors with what every connection of ours has: one prefix, deadlines, a lock."""

from __future__ import annotations

import traceback
from collections.abc import Generator
from functools import cache
from typing import Any

from pyinfra import logger
from pyinfra.api import Host, State, StringCommand
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.util import (
    CommandOutput,
    OutputLine,
    extract_control_arguments,
    make_unix_command_for_host,
)
from typing_extensions import override

from fleet.kit.connection.lock import HostLock
from fleet.kit.connection.login import examine
from fleet.kit.connection.losable import LOSS, Losable, words_of
from fleet.kit.connection.prefix import prefixed
from fleet.kit.connection.silence import Watch
from fleet.kit.connection.together import Answers, Heard, is_together
from fleet.kit.errors import FleetError

STEP_DEADLINE = 3600  # seconds that one command may take
LOGIN_DEADLINE = 60  # the same while a login is examined


class Careful(Losable):
    """What stands before a connector's own class; see `careful`."""

    _watch: Watch | None = None

    def __init__(self, state: State, host: Host) -> None:
        super().__init__(state, host)
        self._lock = HostLock()
        self._answers = Answers(self._asked_as_root) if is_together() else None

    @override
    def connect(self) -> None:
        """Connect, and refuse a login under which commands would not do what they say.

        Raises:
            ConnectError: why there is no connection that is of use; never anything else.
        """
        if self._watch:
            self._watch.end()
        self.lost = self.trouble = ""
        try:
            super().connect()
            self._look_out()
            examine(str(self.data.get("ssh_user") or "this user"), self._as_login, self._as_root)
            if self._lock.held_as and (other := self.hold()):
                raise ConnectError(f"its lock went to {other}")
        except Exception as error:
            self.trouble = words_of(error) or f"no answer to the login within {LOGIN_DEADLINE} s"
            if (transport := self._transport()) is not None:
                transport.close()
            if not isinstance(error, LOSS):
                logger.warning("".join(traceback.format_exception(error)))
            raise ConnectError(self.trouble) from None

    @override
    def disconnect(self) -> None:
        """Disconnect, and let go of the lock."""
        if self._watch:
            self._watch.end()
        if not self.lost:
            if self._answers and self._lock.held_as and self.host not in self.state.failed_hosts:
                self._answers.keep_questions()
            self._lock.release()
        super().disconnect()

    @override
    def run_shell_command(
        self, command: Any, print_output: bool = False, print_input: bool = False, **arguments: Any
    ) -> Heard:
        """Run `command` under the prefix, for an hour at most unless `_timeout` says otherwise.

        Raises:
            FleetError: the connection is lost, and no operation is run that could fail by it: what
                is planned or checked without answers would only be wrong.
        """
        if known := self._known(command, arguments):
            return known
        limit = arguments["_timeout"] = arguments.get("_timeout") or STEP_DEADLINE
        inner: Any = super()
        too_long = f"a command did not end within {limit} s; it may go on by itself"
        with self._within(limit, too_long):
            ok, output = self._attempt(
                lambda: inner.run_shell_command(
                    prefixed(command), print_output, print_input, **arguments
                ),
                too_long,
            )
        if ok:
            return ok, output
        transport = self._transport()
        if transport is not None and not transport.is_active():
            # Its status is that of no command.
            self._lose("the connection was lost")
        if self.lost:
            words = f"{self.host.name}: {self.lost}"
            if not self.state.is_executing:
                raise FleetError(words)
            output = CommandOutput([OutputLine("stderr", words)])
        self.trouble = output.stderr
        return ok, output

    def _known(self, command: Any, arguments: Any) -> Heard | None:
        """What the host has answered to `command` before, if that is a question."""
        if self._answers is None or self.lost:
            return None
        if not isinstance(command, StringCommand):
            command = StringCommand(command)
        root = self._root_arguments()
        is_usual = all(arguments.get(key) == root.get(key) for key in {*arguments, *root})
        return self._answers.heard(command, is_usual=is_usual)

    def aside(self, command: StringCommand) -> Heard:
        """Run `command` as root, which changes nothing of what the host has answered."""
        return self._asked_as_root(command, [])

    def _asked_as_root(self, command: StringCommand, lines: list[str]) -> Heard:
        inner: Any = super()
        arguments = {**self._root_arguments(), "_timeout": STEP_DEADLINE, "_stdin": lines}
        with self._within(STEP_DEADLINE, "its questions were not answered"):
            return self._attempt(
                lambda: inner.run_shell_command(prefixed(command), False, False, **arguments),
                "its questions were not answered",
            )

    @override
    def put_file(self, *arguments: Any, **options: Any) -> bool:
        """Upload a file; whether it is there now."""
        if self._answers:
            self._answers.note_change()
        inner: Any = super()
        return self._transferred(lambda: inner.put_file(*arguments, **options))

    @override
    def get_file(self, *arguments: Any, **options: Any) -> bool:
        """Download a file; whether it is here now."""
        inner: Any = super()
        return self._transferred(lambda: inner.get_file(*arguments, **options))

    @property
    def holds(self) -> bool:
        """Whether this run has taken the host's lock."""
        return bool(self._lock.held_as)

    def hold(self, *, force: bool = False) -> str:
        """Hold the host's lock until this connection ends; who holds it, if that is another run.

        By `force` that one is ended. Only SSH has a connection whose end a host sees: over other
        connectors, nobody is kept out.

        Raises:
            ConnectError: it cannot be locked.
        """
        # The run that had it may have ended just now.
        self.ask_anew()
        client = getattr(self, "client", None)
        return "" if client is None else self._lock.take(client, self._line_as_root, force=force)

    def ask_anew(self) -> None:
        """Take nothing for known that the host has answered before."""
        if self._answers:
            self._answers.forget()

    def _line_as_root(self, command: StringCommand) -> str:
        arguments = self._root_arguments()
        extract_control_arguments(arguments)
        line = make_unix_command_for_host(self.state, self.host, prefixed(command), **arguments)
        return line.get_raw_value()

    def lines_of(self, command: StringCommand) -> Generator[str, None, None]:
        """Each line that `command` prints, as root, as it comes.

        Its standard input ends when this is closed.

        Raises:
            FleetError: the host is not reached by SSH, the only connector that waits for lines.
        """
        client = getattr(self, "client", None)
        if client is None:
            raise FleetError(f"{self.host.name}: only over SSH can a command be followed")
        stdin, stdout, _ = client.exec_command(self._line_as_root(command))
        try:
            for line in stdout:
                yield line.rstrip("\n")
        finally:
            stdin.channel.close()

    def let_go(self) -> None:
        """Let go of the host's lock, for whoever comes next."""
        if not self.lost:
            self._lock.release()
        self._lock = HostLock()

    def _look_out(self) -> None:
        """Notice a host that falls silent, and tell it that this run lives."""
        if (transport := self._transport()) is not None:
            self._watch = Watch(
                transport,
                alive=self._beat,
                silent=lambda: self._lose("it does not answer any more; the connection was ended"),
            )

    def _beat(self) -> None:
        if self._lock.beat():
            return
        try:
            other = self.hold()
        except LOSS as error:
            self._lose(words_of(error))
            return
        if other:
            self._lose(f"its lock went to {other} while this run was silent; deploy again")

    def _as_login(self, command: StringCommand) -> Heard:
        return self._examined(command, {})

    def _as_root(self, command: StringCommand) -> Heard:
        try:
            return self._examined(command, self._root_arguments())
        except EOFError:
            # pyinfra asks for sudo's password, and there is no terminal to ask at.
            return False, CommandOutput([OutputLine("stderr", "sudo asks for a password")])

    def _examined(self, command: StringCommand, arguments: Any) -> Heard:
        inner: Any = super()
        limited = {**arguments, "_timeout": LOGIN_DEADLINE}
        with self._within(LOGIN_DEADLINE, f"no answer to the login within {LOGIN_DEADLINE} s"):
            heard: Heard = inner.run_shell_command(command, False, False, **limited)
        transport = self._transport()
        if transport is not None and not transport.is_active():
            raise ConnectError(self.lost or "the connection was lost")
        return heard

    def _root_arguments(self) -> Any:
        """How commands become root on this host: what its inventory says of sudo and su."""
        arguments: Any = pop_global_arguments(self.state, self.host, {})[0]
        return {key: arguments[key] for key in CONNECTOR_ARGUMENT_KEYS if key in arguments}


@cache  # a connector's own class must be the same for each of its hosts
def careful(connector: type[BaseConnector]) -> type[BaseConnector]:
    """The class `connector` with `Careful` before it."""
    return type(f"Careful{connector.__name__}", (Careful, connector), {})


def be_careful() -> None:
    """Have every host of this process reached so, whoever asks it: a deploy, a check, a command.

    A host makes its connection when the run's state is made, long before any code of a deploy.
    """
    if getattr(Host.init, "is_careful", False):
        return
    init = Host.init

    def make(host: Host, state: State) -> None:
        host.connector_cls = careful(host.connector_cls)
        if state.should_raise_failed_hosts:
            # A host that fails is its own matter: nobody is asked whether the others may go on.
            state.should_raise_failed_hosts = lambda _: False
        init(host, state)

    make.is_careful = True  # type: ignore[attr-defined]
    Host.init = make  # type: ignore[assignment, method-assign]
