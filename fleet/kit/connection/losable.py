"""A connection that can be lost, and that says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from paramiko import ChannelException, SSHException, Transport
from pyinfra import logger
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.base import BaseConnector
from pyinfra.connectors.util import CommandOutput

from fleet.kit.connection.lock import NO_SESSION
from fleet.kit.connection.together import Heard

LOSS = (OSError, EOFError, SSHException, ConnectError)


class Losable(BaseConnector):
    """A connection that, once it is lost, has its reason in what its commands answer.

    pyinfra itself counts them as failed without a word, and some exceptions end its run of all
    hosts.
    """

    # Why the connection is of no more use; empty while it is.
    lost = ""
    # What the last command that failed wrote to standard error, or why there is no connection.
    trouble = ""

    def _transferred(self, act: Callable[[], bool]) -> bool:
        """What `act` returns; of a file that cannot be read or written, why, and false."""
        transport = self._transport()
        try:
            return act()
        except LOSS as error:
            if transport is not None and not transport.is_active():
                self._lose("the connection was lost")
            self.trouble = self.lost or words_of(error)
            self.host.log(self.trouble, log_func=logger.error)
        return False

    def _attempt(self, act: Callable[[], Heard], too_long: str) -> Heard:
        """What `act` returns, or a failure when there is no connection, or none after it."""
        failed = False, CommandOutput([])
        if self.lost:
            return failed
        try:
            return act()
        except TimeoutError as error:
            self._lose(str(error) or too_long)
        except LOSS as error:
            self._lose(f"the connection was lost: {words_of(error)}")
        return failed

    @contextmanager
    def _within(self, limit: int, words: str) -> Iterator[None]:
        """Give the connection up by `words` after `limit` seconds.

        pyinfra's own `_timeout` is one of gevent, which reads nothing in a process that it has not
        taken over: `fleet` and the checks.
        """
        timer = threading.Timer(limit + 1, self._lose, (words,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _lose(self, reason: str) -> None:
        """Give the connection up; the first reason is the one that counts."""
        self.lost = self.lost or reason
        self.trouble = f"{self.host.name}: {self.lost}"
        if (transport := self._transport()) is not None:
            transport.close()

    def _transport(self) -> Transport | None:
        client = getattr(self, "client", None)
        return client.get_transport() if client is not None else None


def words_of(error: BaseException) -> str:
    """What an error says; pyinfra's errors have their words in their first argument."""
    if isinstance(error, ChannelException):
        return NO_SESSION
    return " ".join(str(part) for part in error.args) or (
        "" if isinstance(error, TimeoutError) else type(error).__name__
    )
