"""A deploy's questions are answered in one go, and never by what was true before a change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import Config, FactBase, Host, MaskString, State, StringCommand
from pyinfra.api.inventory import Inventory
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.util import CommandOutput

from fleet.kit.connection import together
from fleet.kit.connection.careful import Careful, careful
from fleet.kit.connection.together import ask_together


class Lines(FactBase[list[str]]):
    """What a command prints."""

    def command(self, text: str) -> StringCommand:
        return StringCommand(text)

    def process(self, output: list[str]) -> list[str]:
        return output


class Hidden(Lines):
    """The same, of a command with a secret in it."""

    def command(self, text: str) -> StringCommand:
        return StringCommand(MaskString(text))


class Counting(LocalConnector):
    """This machine, which counts what it runs."""

    count = 0

    def run_shell_command(self, *arguments: Any, **options: Any) -> tuple[bool, CommandOutput]:
        self.count += 1
        return super().run_shell_command(*arguments, **options)


class Run:
    """A run of a deploy on this machine as its only host."""

    def __init__(self) -> None:
        inventory = Inventory((["@local"], {}))
        State(inventory, Config()).is_executing = True
        self.host: Host = inventory.get_host("@local")
        self.host.connector = self.connector = careful(Counting)(self.host.state, self.host)
        self.host.connected = True
        assert isinstance(self.connector, Careful)
        assert self.connector._answers

    def ask(self, *texts: str) -> list[list[str]]:
        return [self.host.get_fact(Lines, text=text) for text in texts]

    def count(self) -> int:
        count, self.connector.count = self.connector.count, 0
        return count

    def end(self) -> None:
        self.connector._answers.keep_questions()
        self.count()


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(Host, "get_fact", Host.get_fact)
    monkeypatch.setattr(together, "RUN", str(tmp_path))
    monkeypatch.setattr(together, "QUESTIONS", str(tmp_path / "questions"))
    ask_together()
    return


def test_the_second_run_asks_once(tmp_path: Path) -> None:
    there = tmp_path / "there"
    texts = [f"cat {there}", "printf 'no end'", "echo 'a  b'; echo; echo '=x'; echo r1"]
    there.write_text("before\n")
    want = [["before"], ["no end"], ["a  b", "", "=x", "r1"]]
    first = Run()
    assert first.ask(*texts, *texts) == want * 2
    # One more asks what is to be asked together: nothing is, yet.
    assert first.count() == 7
    first.end()
    there.write_text("after\n")
    second = Run()
    assert second.ask(*texts, *texts) == [["after"], *want[1:]] * 2
    assert second.count() == 1
    assert second.ask("echo new") == [["new"]]
    assert second.count() == 1
    second.end()
    third = Run()
    assert third.ask("echo new", *texts[1:]) == [["new"], *want[1:]]
    assert third.count() == 1


@pytest.mark.parametrize("change", ["command", "upload", "lock", "age"])
def test_no_answer_outlives_a_change(
    tmp_path: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.write_text("1\n")
    first = Run()
    first.ask(f"cat {there}")
    first.end()
    run = Run()
    assert run.ask(f"cat {there}") == [["1"]]
    if change == "command":
        run.host.run_shell_command(f"echo 2 > {there}")
    elif change == "upload":
        source = tmp_path / "source"
        source.write_text("2\n")
        assert run.host.put_file(str(source), str(there))
    else:
        there.write_text("2\n")
        assert run.ask(f"cat {there}") == [["1"]]
        if change == "lock":
            run.connector.hold()
        else:
            monkeypatch.setattr(together.time, "monotonic", lambda: run_until + 1)
            run_until = run.connector._answers._until
    assert run.ask(f"cat {there}") == [["2"]]


def test_failure_is_an_answer_too() -> None:
    for want in (3, 1):
        run = Run()
        ok, output = _heard(run, "echo out; echo err >&2; exit 3")
        assert (ok, output.stdout_lines, output.stderr_lines) == (False, ["out"], ["err"])
        assert _heard(run, "true")[0]
        assert run.count() == want
        run.end()


def _heard(run: Run, text: str) -> tuple[bool, CommandOutput]:
    token = together._IS_QUESTION.set(True)
    try:
        arguments = run.connector._root_arguments()
        heard: tuple[bool, CommandOutput] = run.host.run_shell_command(
            StringCommand(text), **arguments
        )
        return heard
    finally:
        together._IS_QUESTION.reset(token)


def test_slow_question_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "_LIMIT", 1)
    texts = ["sleep 1.5; echo slow", "echo quick"]
    first = Run()
    first.ask(*texts)
    first.end()
    second = Run()
    assert second.ask(*texts) == [["slow"], ["quick"]]
    # All together, and the slow one alone.
    assert second.count() == 2


def test_no_secret_and_no_other_account_is_among_them(tmp_path: Path) -> None:
    run = Run()
    run.host.get_fact(Hidden, text="echo secret")
    run.host.get_fact(Lines, text="echo other", _env={"A": "b"})
    run.ask("echo usual")
    run.end()
    questions = (tmp_path / "questions").read_text().splitlines()
    assert len(questions) == 2
    assert (tmp_path / "questions").stat().st_mode & 0o777 == 0o600


def test_broken_questions_are_asked_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "questions").write_text("x\n%%%\nname\n")
    assert Run().ask("echo a") == [["a"]]
