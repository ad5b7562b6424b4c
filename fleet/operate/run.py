"""A deploy, or a look at what one would do, by pyinfra's own command line."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.run import FORCE
from fleet.operate.child import Child
from fleet.operate.outcome import Outcome
from fleet.operate.show import Display

_LOGS_KEPT: Final = 20  # of each inventory


class Run:
    """A run over `hosts` of `inventory`, with `options` of pyinfra.

    With `echoes` its output is shown, with `forces` it ends another run that is at work there.

    `outcome` is what came of each host, `log` the file with pyinfra's own output, and `status` its
    exit status once it has ended.
    """

    def __init__(  # noqa: PLR0913 - what it is about, and how
        self,
        fleet: Fleet,
        inventory: Path,
        hosts: Iterable[FleetHost],
        options: Iterable[str],
        *,
        echoes: bool = False,
        forces: bool = False,
    ) -> None:
        names = [host.name for host in hosts]
        self.outcome = Outcome(names)
        self.log = _new_log(inventory)
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self.status: int | None = None
        self.inventory, self._project, self._echoes = inventory, fleet.root, echoes
        # All of them need no naming: there may be thousands.
        are_all = names == [host.name for host in fleet]
        limits = [] if are_all else [option for name in names for option in ("--limit", name)]
        self._options = [*limits, *options]
        self._environment = {FORCE: "1"} if forces else {}

    def carry_out(self, is_wanted: Callable[[Outcome], bool]) -> Outcome:
        """Run it, and ask `is_wanted` once there is a plan; whatever ends this ends the run."""
        display = Display(self.console, self.outcome)
        show = display.echo if self._echoes else lambda _: None
        arguments = [str(self.inventory.absolute()), "deploy.py", *self._options]
        child = Child(arguments, self._project, self._environment, self.log, show)
        with child, display:
            try:
                self._follow(child, display, is_wanted)
            except BaseException:
                child.interrupt()
                for event in child.events():
                    if event["event"] == "left":
                        display.echo(event["text"])
                raise
            self.status = child.wait()
        return self.outcome

    def _follow(self, child: Child, display: Display, is_wanted: Callable[[Outcome], bool]) -> None:
        began = time.monotonic()
        for event in child.events():
            now = time.monotonic() - began
            host = self.outcome.take(event, now)
            if host is not None:
                display.show(event, host, now)
            if event["event"] == "planned":
                with display.paused():
                    child.answer(is_wanted(self.outcome))

    def need_told(self) -> None:
        """Make nothing of what a run has not told: of hosts, where it broke and failed others.

        Raises:
            FleetError: it has ended before it told of any, or badly and says of none why.
        """
        outcome = self.outcome
        has_told = outcome.is_executed or outcome.is_planned or outcome.failed
        is_good = outcome.is_ended and not self.status
        if not has_told or not (is_good or outcome.failed):
            raise FleetError(f"pyinfra ended with {self.status}; all that it said is in {self.log}")
        if not outcome.is_ended:
            outcome.lose(f"pyinfra ended early, see {self.log}")


def ends_on_sigterm() -> None:
    """Have this process end by SIGTERM as by Ctrl-C: with its runs."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def _new_log(inventory: Path) -> Path:
    """A file for what pyinfra prints, where nobody else reads; of the older ones, some are kept."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    folder = base / "llm-fleet"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = f"deploy-{inventory.stem}-"
    # The rest of another inventory's name may begin as this one's does.
    ours = re.compile(rf"{re.escape(name)}\d{{8}}T\d{{6}}-\d+\.log")
    logs = sorted(path for path in folder.iterdir() if ours.fullmatch(path.name))
    for old in logs[: 1 - _LOGS_KEPT]:
        old.unlink(missing_ok=True)
    log = folder / f"{name}{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    log.touch(mode=0o600)
    return log
