"""Every command ends with a status that says what it found."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from fleet.kit.errors import FleetError
from fleet.operate.command import FINDINGS, Commands


@click.command()
@click.argument("how")
@click.pass_context
def asked(context: click.Context, how: str) -> None:
    """Ends as it is asked to."""
    if how == "finds":
        context.exit(FINDINGS)
    ends = {
        "refuses": click.ClickException("no such key"),
        "knows nothing": FleetError("gpu1: no connection"),
        "cannot read": PermissionError(13, "Permission denied", "/etc/x"),
        "cannot say where": OSError("no file"),
        "is interrupted": KeyboardInterrupt(),
    }
    if how in ends:
        raise ends[how]


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("is good", 0, ""),
        ("finds", 1, ""),
        ("refuses", 2, "no such key"),
        ("knows nothing", 2, "gpu1: no connection"),
        ("cannot read", 2, "Error: /etc/x: Permission denied\n"),
        ("cannot say where", 2, "Error: no file\n"),
        ("is interrupted", 130, "interrupted"),
        ("--no-such", 2, "No such option"),
    ],
)
def test_status(how: str, status: int, said: str) -> None:
    result = CliRunner().invoke(Commands(commands=[asked]), ["asked", how])
    assert result.exit_code == status
    assert said in result.output
