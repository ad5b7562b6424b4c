"""Many questions are one command, and none of their answers can pass for another's."""

from __future__ import annotations

import time

from pyinfra.api import StringCommand

from fleet.kit.facts.sections import LONGEST, MOST, Sections
from tests.unit.facts import ask

MARK = "llm-fleet 8ff1"


def asked(*commands: str) -> list[list[str]]:
    found: list[list[str]] = ask(
        Sections(), commands=[StringCommand(text) for text in commands], mark=MARK
    )
    return found


def test_each_answer_is_its_own() -> None:
    assert asked("echo a; echo; echo b", "true", "printf c", "false", "echo 'd'") == [
        ["a", "", "b"], [], ["c"], [], ["d"],
    ]  # fmt: skip


def test_nothing_is_asked() -> None:
    assert asked() == []


def test_what_a_command_says_of_itself_is_dropped() -> None:
    assert asked("no-such-program-here", "cat /no/such/file", "exit 7") == [[], [], []]


def test_answer_without_an_end() -> None:
    [lines, after] = asked("yes x", "echo after")
    assert len(lines) == MOST // 2
    assert after == ["after"]


def test_answer_that_never_comes() -> None:
    began = time.monotonic()
    assert asked("echo begun; sleep 60", "echo after") == [["begun"], ["after"]]
    assert LONGEST <= time.monotonic() - began < LONGEST + 10


def test_command_reads_nothing_of_ours() -> None:
    assert asked("cat") == [[]]
