"""Tries what may go better at the next attempt, with patience that is declared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from common import ProgramError, log
from job_state import Phase, State
from transfer import BusyError, Limits, RefusedError, TooSlowError


class OutdatedError(Exception):
    """What failed was asked for by a configuration that has been replaced since."""


class Attempts:
    """Attempts of a run, which are written down in `state`."""

    def __init__(self, state: State, limits: Limits, is_outdated: Callable[[], bool]) -> None:
        self.state, self.limits, self.is_outdated = state, limits, is_outdated

    def until_done(self, name: str, work: Callable[[], int], completed: Callable[[], int]) -> None:
        """Try `work` until it is done; it returns the bytes of the whole.

        Only attempts in a row that brought no new byte are counted: `completed` tells how many
        came so far, at best.

        Raises:
            OutdatedError: it failed, and nobody asks for it any more.
        """
        fruitless = 0
        while True:
            before, wait = completed(), 0.0
            self.state.update(name, attempts=self.state.models[name].attempts + 1)
            try:
                size = work()
                self.state.update(
                    name, phase=Phase.READY, error="", rate=0, completed=size, total=size
                )
                return
            except TooSlowError as error:
                self._failed(name, str(error))
                continue
            except RefusedError as error:
                self._failed(name, str(error), phase=Phase.FAILED)
                return
            except (ProgramError, OSError, ValueError) as error:
                fruitless = 1 if completed() > before else fruitless + 1
                wait = error.wait if isinstance(error, BusyError) else 0.0
                reason = str(error) if isinstance(error, ProgramError) else repr(error)
                reason += f" (attempt {fruitless} of {self.limits.attempts})"
                if self.is_outdated():
                    # A server that is gone, or what nobody wants any more.
                    raise OutdatedError(f"{name}: {reason}") from None
            if fruitless >= self.limits.attempts:
                self._failed(name, reason, phase=Phase.FAILED)
                return
            self._failed(name, reason)
            asked = min(wait, self.limits.longest_delay)
            time.sleep(max(self.limits.delay(fruitless), asked))

    def _failed(self, name: str, reason: str, **values: Any) -> None:
        log(f"{name}: {reason}")
        self.state.update(name, error=reason, rate=0, **values)
