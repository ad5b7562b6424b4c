"""pyinfra's own command line as a child process, with what it tells of its run."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from fleet.kit.errors import FleetError
from fleet.kit.events import DESCRIPTOR, GO_ON

_BEGINS = 120  # seconds in which config.py, which pyinfra runs first, has to have told of itself
_PATIENCE = 10  # seconds that an interrupted run gets to say what it leaves behind

Event = dict[str, Any]


class Child(AbstractContextManager["Child"]):
    """A run of `pyinfra ARGUMENT...` in the directory `project`.

    `environment` is added to this process' own. What it prints goes to the file `log`, and each
    line to `show`. However the context ends, so does the run.
    """

    def __init__(
        self,
        arguments: Iterable[str],
        project: Path,
        environment: Mapping[str, str],
        log: Path,
        show: Callable[[str], None],
    ) -> None:
        ours, theirs = os.pipe()
        # The same interpreter, and so the same packages, as this command.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pyinfra", *arguments],
            cwd=project,
            env={
                **os.environ,
                **environment,
                DESCRIPTOR: str(theirs),
                "PYINFRA_PROGRESS": "off",
            },
            pass_fds=[theirs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        os.close(theirs)
        self._events = os.fdopen(ours)
        self._refusal = (
            f"pyinfra in {project} ran no config.py of llm-fleet and was ended; all that it said "
            f"is in {log}"
        )
        self._has_begun = False
        self._reader = threading.Thread(target=self._read, args=(log, show), daemon=True)
        self._reader.start()

    def __exit__(self, *_: object) -> None:
        """End it where it goes on."""
        self.interrupt()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._events):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()

    def events(self) -> Iterator[Event]:
        """Each event as it comes, until the run has ended.

        Raises:
            FleetError: it does not tell that it begins: what runs is none of ours, and may wait
                for an answer for ever.
        """
        if not self._has_begun:
            self._has_begun = True
            self._begin()
        for line in self._events:
            event: Event = json.loads(line)
            yield event

    def _begin(self) -> None:
        is_told = select.select([self._events], [], [], _BEGINS)[0]
        line = self._events.readline() if is_told else ""
        # Where it has ended already, that is told by its exit status.
        if not is_told or (line and json.loads(line)["event"] != "begins"):
            self.interrupt()
            raise FleetError(self._refusal)

    def answer(self, goes_on: bool) -> None:
        """Answer the question that follows a plan; after that of a dry run, there is none."""
        stdin = self._process.stdin
        assert stdin
        # Where it has ended meanwhile, `events` has why.
        with suppress(BrokenPipeError):
            stdin.write(f"{GO_ON if goes_on else 'no'}\n")
            stdin.flush()

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait()

    def interrupt(self) -> None:
        """End it, if it has not ended: by an interrupt, as of a terminal, unless it stays deaf."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            self._process.send_signal(number)
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                continue
            break

    def _read(self, log: Path, show: Callable[[str], None]) -> None:
        output = self._process.stdout
        assert output
        with log.open("a") as file:
            for line in output:
                file.write(line)
                file.flush()
                show(line.rstrip("\n"))
