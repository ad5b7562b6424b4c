"""`fleet deploy` and `fleet drift`: what they ask, print, and end with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleet import cli
from fleet.operate import deploy as deploy_module
from fleet.operate import drift as drift_module
from tests.unit.operate.project import HERE, NOWHERE, Project, project

__all__ = ["project"]

HOST_KEYS = {"changed", "restarted", "would_change", "would_restart", "failed", "seconds"}
CHANGES = 'server.shell(name="Change", commands=["touch made"])'
NO_CHANGE = 'operation()(lambda: iter(()))(name="Change")'
FAILS = 'server.shell(name="Break", commands=["echo no such release >&2; exit 1"])'


class Terminal:
    """Standard input that a person sits at."""

    @staticmethod
    def isatty() -> bool:
        return True


@pytest.fixture
def fleet(project: Project, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command on the small project, whose deploy.py is given."""

    def command(name: str, steps: str, *arguments: str, answer: str | None = None) -> Result:
        project.names = (HERE, NOWHERE)
        declared = project.declared(steps)
        module = deploy_module if name == "deploy" else drift_module
        monkeypatch.chdir(project.root)
        monkeypatch.setattr(module, "open_asked", lambda _: (None, declared))
        if answer is not None:
            monkeypatch.setattr(deploy_module, "sys", type("sys", (), {"stdin": Terminal}))
        return CliRunner().invoke(
            cli.main, [name, str(project.inventory), *arguments], input=answer
        )

    return command


def as_json(result: Result) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(result.stdout)
    return values


@pytest.mark.parametrize("arguments", [[], ["--json"], ["gpu1"]])
def test_nobody_is_waited_for_without_a_terminal(inventory: Path, arguments: list[str]) -> None:
    """... and it says so before it looks at anything."""
    result = CliRunner().invoke(cli.main, ["deploy", str(inventory), *arguments])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr == (
        "Error: there is no terminal to ask at, so nothing was done; add --yes or --dry\n"
    )


def test_a_host_that_is_not_there_is_refused(fleet: Any) -> None:
    result = fleet("deploy", CHANGES, "gpu9", "--yes")
    assert result.exit_code == 2
    assert "gpu9: no such host or group in this inventory" in result.stderr


def test_deploy_says_what_changed_and_what_comes_next(fleet: Any, project: Project) -> None:
    result = fleet("deploy", CHANGES, HERE, "--yes")
    assert result.exit_code == 0, result.output
    assert result.stderr == f"{HERE}  changed  Change\n"
    first, last = result.stdout.splitlines()
    assert first.startswith(f"{HERE}  changed: Change (")
    assert last == f"Next, prove it: fleet verify {project.inventory}".strip()


def test_deploy_without_a_change_is_quiet(fleet: Any) -> None:
    result = fleet("deploy", NO_CHANGE, HERE, "--yes")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines()[0] == f"Nothing to change on {HERE}."


def test_a_failure_has_its_reason_on_the_screen(fleet: Any) -> None:
    result = fleet("deploy", FAILS, "--yes")
    assert result.exit_code == 1
    text = " ".join(result.stdout.split())
    assert f"{HERE} FAILED after " in text
    assert "Break: no such release" in text
    assert f"{NOWHERE} FAILED: Could not connect" in text
    assert "fleet verify" not in text


@pytest.mark.parametrize(
    ("answer", "status", "is_made"), [("y\n", 0, True), ("n\n", 1, False), ("\n", 1, False)]
)
def test_one_question_after_the_plan(
    fleet: Any, project: Project, answer: str, status: int, is_made: bool
) -> None:
    result = fleet("deploy", CHANGES, HERE, answer=answer)
    assert result.exit_code == status, result.output
    assert result.stderr.startswith(f"{HERE}  would change 1:\n    Change\nDeploy to 1 host?")
    assert (project.root / "made").exists() == is_made
    assert ("Nothing was deployed." in result.stdout) != is_made


def test_dry_tells_the_plan_and_does_nothing(fleet: Any, project: Project) -> None:
    result = fleet("deploy", CHANGES, HERE, "--dry")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{HERE}  would change 1:", "    Change"]
    assert not (project.root / "made").exists()


def test_json_is_one_object(fleet: Any) -> None:
    values = as_json(fleet("deploy", CHANGES, "--yes", "--json"))
    assert set(values) == {"schema", "dry", "deployed", "hosts", "log"}
    assert values["schema"] == "fleet-deploy/1"
    assert (values["dry"], values["deployed"]) == (False, True)
    assert Path(values["log"]).exists()
    here, nowhere = values["hosts"][HERE], values["hosts"][NOWHERE]
    assert set(here) == set(nowhere) == HOST_KEYS
    assert (here["changed"], here["failed"]) == (["Change"], None)
    assert here["seconds"] > 0
    assert "Could not connect" in nowhere["failed"]


@pytest.mark.parametrize("name", ["deploy", "drift"])
def test_a_run_that_tells_nothing_is_no_success(fleet: Any, name: str) -> None:
    options = ["--yes"] if name == "deploy" else []
    result = fleet(name, "raise ValueError('no')", HERE, *options)
    assert result.exit_code == 2
    assert "pyinfra ended with 1; all that it said is in /" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("steps", "arguments", "status"),
    [
        (NO_CHANGE, [HERE], 0),
        (CHANGES, [HERE], 1),
        # Drift is drift, whoever could not be asked besides; without any, that is what matters.
        (CHANGES, [], 1),
        (NO_CHANGE, [], 2),
    ],
)
def test_drift_ends_as_a_timer_needs_it(
    fleet: Any, project: Project, steps: str, arguments: list[str], status: int
) -> None:
    result = fleet("drift", steps, *arguments, "--json")
    assert result.exit_code == status, result.output
    values = as_json(result)
    assert values["schema"] == "fleet-drift/1"
    assert set(values) == {"schema", "hosts"}
    here = values["hosts"][HERE]
    assert here == {
        "would_change": ["Change"] if steps == CHANGES else [],
        "would_restart": [],
        "not_known": None,
    }
    if not arguments:
        assert "Could not connect" in values["hosts"][NOWHERE]["not_known"]
    assert not (project.root / "made").exists()


def test_drift_is_read_by_people_too(fleet: Any) -> None:
    result = fleet("drift", CHANGES)
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:2] == [f"{HERE}  would change 1:", "    Change"]
    assert f"{NOWHERE}  cannot be deployed: Could not connect" in result.stdout
