"""`--help` of every command is complete, and no wider than a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from fleet import cli

WIDTH = 80  # columns


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(group, click.Group):
        for name, command in group.commands.items():
            yield from commands(command, (*path, name))


def found(path: tuple[str, ...]) -> click.Command:
    command: click.Command = cli.main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


def help_of(path: tuple[str, ...]) -> str:
    # As wide a terminal as there is: lines are still no longer than 80.
    result = CliRunner().invoke(cli.main, [*path, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    return result.output


every_command = pytest.mark.parametrize("path", list(commands(cli.main)), ids=" ".join)


@every_command
def test_help_is_no_wider_than_a_terminal(path: tuple[str, ...]) -> None:
    text = help_of(path)
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert "\b" not in text


@every_command
def test_help_says_what_everything_is(path: tuple[str, ...]) -> None:
    """... the command in its first sentence, each option, and each argument by its name there."""
    command = found(path)
    assert command.help
    assert command.help.partition("\n\n")[0].strip().endswith("."), "a sentence comes first"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.opts[0]} has no help"
            assert parameter.help.endswith("."), f"{parameter.opts[0]}: {parameter.help}"
        elif path:
            names = re.findall("[A-Z]+", parameter.human_readable_name.upper())
            said = " ".join((command.help, *EVERYWHERE))
            assert any(name in said for name in names), f"{names} is not explained"


# What is the same for all commands is explained once, in the help of `fleet` itself.
EVERYWHERE = ("INVENTORY",)


@every_command
def test_a_list_of_commands_tells_each_apart(path: tuple[str, ...]) -> None:
    """A line of the list is not cut off in the middle of what it says."""
    command = found(path)
    if isinstance(command, click.Group):
        listed = help_of(path).partition("Commands:\n")[2]
        assert "..." not in listed, listed
        assert listed.count("\n  ") + 1 >= len(command.commands)


def test_the_statuses_are_said_once_for_all() -> None:
    text = " ".join(help_of(()).split())
    assert "0 good, 1 findings, 2 could not tell, 130 interrupted" in text
    assert "INVENTORY" in text
