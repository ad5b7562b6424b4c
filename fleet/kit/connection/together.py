"""What a deploy asks of a host, asked in one go: most of a deploy without a change is questions.

The host keeps the questions of the last deploy that succeeded, until it restarts; the next one has
them answered by a single command, and asks one by one what was not among them. An answer counts as
long as this run has changed nothing on the host, and half a minute at most.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pyinfra.api import Host, QuoteString, StringCommand
from pyinfra.connectors.util import CommandOutput, OutputLine

from fleet.kit.paths import RUN

Heard = tuple[bool, CommandOutput]
# Runs a command as root on the host, with these lines on its standard input.
Run = Callable[[StringCommand, list[str]], Heard]

QUESTIONS = f"{RUN}/questions"
_AGE = 30  # seconds that an answer counts
_LIMIT = 20  # seconds that one question may take among others
_TIMED_OUT = 124
_PROGRAM = (Path(__file__).parents[1] / "on_host" / "answer-all").read_text()

# Whether what is run right now only asks.
_IS_QUESTION: ContextVar[bool] = ContextVar("is_question", default=False)


class Answers:
    """What one host has answered in this run; `run` runs a command there."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._answers: dict[str, Heard] = {}
        self._until = 0.0
        self._is_changed = False
        self._listed: set[str] = set()
        self._asked: dict[str, str] = {}

    def forget(self) -> None:
        """Count no answer of before: somebody else may have changed the host since."""
        self._until = 0.0

    def heard(self, command: StringCommand, *, is_usual: bool) -> Heard | None:
        """The answer to `command`, if it is a question that has been answered.

        `is_usual` says that it is asked as the account that `run` asks as.
        """
        if not _IS_QUESTION.get():
            # Whatever it does, nothing that was read before is sure.
            self._is_changed = True
            return None
        if not is_usual:
            return None
        text = command.get_raw_value()
        if text != command.get_masked_value():
            return None
        name = hashlib.sha256(text.encode()).hexdigest()
        self._asked[name] = text
        if self._is_changed:
            return None
        if time.monotonic() > self._until:
            self._ask_all()
        return self._answers.get(name)

    def note_change(self) -> None:
        """Count no answer any more: something was written on the host."""
        self._is_changed = True

    def keep_questions(self) -> None:
        """Have the host keep this run's questions for the next one."""
        if set(self._asked) == self._listed:
            return
        lines = [line for name, text in self._asked.items() for line in (name, _encoded(text))]
        self._run(
            StringCommand(
                "install -d -m 755", RUN, "&& umask 077 && cat >", f"{QUESTIONS}.new",
                "&& mv -f", f"{QUESTIONS}.new", QUESTIONS,
            ),
            lines,
        )  # fmt: skip

    def _ask_all(self) -> None:
        command = StringCommand(
            "[ ! -f", QUESTIONS, "] || bash -c", QuoteString(_PROGRAM), "answer-all", _LIMIT,
            "<", QUESTIONS,
        )  # fmt: skip
        ok, output = self._run(command, [])
        found = _parsed(output.stdout_lines) if ok else {}
        self._listed = set(found)
        self._answers = {
            name: (status == 0, said)
            for name, (status, said) in found.items()
            if status not in (_TIMED_OUT, None)
        }
        self._until = time.monotonic() + _AGE


def ask_together() -> None:
    """Have the facts of this process asked so: of a deploy, which asks each host the same again."""
    if getattr(Host.get_fact, "is_together", False):
        return
    get_fact = Host.get_fact

    def get(host: Host, *args: Any, **kwargs: Any) -> Any:
        token = _IS_QUESTION.set(True)
        try:
            return get_fact(host, *args, **kwargs)
        finally:
            _IS_QUESTION.reset(token)

    get.is_together = True  # type: ignore[attr-defined]
    Host.get_fact = get  # type: ignore[assignment, method-assign]


def is_together() -> bool:
    """Whether `ask_together` was called in this process."""
    return getattr(Host.get_fact, "is_together", False)


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _parsed(lines: list[str]) -> dict[str, tuple[int | None, CommandOutput]]:
    """Name to status, None when it is not told, and what was written."""
    found: dict[str, tuple[int | None, CommandOutput]] = {}
    name = ""
    said: list[OutputLine] = []
    status: int | None = None
    for line in [*lines, "="]:
        kind, text = line[:1], line[1:]
        if kind == "=":
            if name:
                found[name] = (status, CommandOutput(said))
            name, said, status = text, [], None
        elif kind == "r" and text.isdecimal():
            status = int(text)
        elif kind in ("o", "e"):
            said.append(OutputLine("stdout" if kind == "o" else "stderr", text))
    return found
