"""A connection whose other end has fallen silent is ended, so that nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from paramiko import Transport

INTERVAL = 10  # seconds between two questions
PATIENCE = 45  # seconds that an answer may take


class Watch:
    """Asks the other end whether it is there, as OpenSSH's ServerAliveInterval does.

    Calls `alive` after each answer, and `silent`, which is to end the connection, when there is
    none. Waits are counted in seconds of waiting and not by the clock: while pyinfra asks whether
    to go on, nothing else runs in its process.
    """

    def __init__(
        self, transport: Transport, *, alive: Callable[[], None], silent: Callable[[], None]
    ) -> None:
        self._transport, self._alive, self._silent = transport, alive, silent
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def end(self) -> None:
        """Ask no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL) and self._transport.is_active():
            question = threading.Thread(target=self._ask, daemon=True)
            question.start()
            answered = self._answered(question)
            if self._ended.is_set():
                # The host was connected to anew meanwhile, as after a reboot of ours.
                return
            if not answered:
                self._silent()
                return
            if self._transport.is_active():
                self._alive()

    def _ask(self) -> None:
        # Any answer will do: a server that does not know the question refuses it.
        self._transport.global_request("keepalive@openssh.com", wait=True)

    def _answered(self, question: threading.Thread) -> bool:
        for _ in range(PATIENCE):
            question.join(1)
            if not question.is_alive():
                return True
        return False
