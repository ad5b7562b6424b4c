"""`fleet deploy` and `fleet drift`: what they ask, print, and end with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fleet import cli
from fleet.operate import deploy as deploy_module
from fleet.operate import drift as drift_module
from fleet.operate import run as run_module
from fleet.operate.child import Event
from tests.unit.operate.project import HERE, NOWHERE, Project, project

__all__ = ["project"]

HOST_KEYS = {"changed", "restarted", "would_change", "would_restart", "failed", "seconds"}


def event(name: str, host: str = HERE, **details: Any) -> Event:
    return {"event": name, "host": host, **details}


PLAN = [event("would", operation="Change"), {"event": "planned"}]
STEP = [event("connected"), event("starts", operation="Change")]
CHANGES = [*STEP, event("done", operation="Change", changed=True)]
NO_CHANGE = [*STEP, event("done", operation="Change", changed=False)]
UNREACHED = [event("lost", NOWHERE, reason="Could not connect"), {"event": "planned"}]
FAILS = [
    UNREACHED[0],
    *STEP,
    event("error", operation="Break"),
    event("failed", reason=f"{HERE}: Break: no such release"),
]


class Told:
    """Stands for the child whose events these are; after a plan only a yes brings more of them."""

    def __init__(self, events: list[Event], status: int, *, ends: bool = True) -> None:
        self._events, self._status, self._ends = events, status, ends
        self.answers: list[bool] = []

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def events(self) -> Iterator[Event]:
        for item in self._events:
            yield item
            if self.answers and not self.answers[-1]:
                break
        if self._ends:
            yield {"event": "ended"}

    def answer(self, goes_on: bool) -> None:
        self.answers.append(goes_on)

    def wait(self) -> int:
        return self._status

    def interrupt(self) -> None:
        pass


class Terminal:
    """Standard input that a person sits at."""

    @staticmethod
    def isatty() -> bool:
        return True


class Command:
    """`fleet NAME` on the small project, with what its run tells."""

    def __init__(self, project: Project, patch: pytest.MonkeyPatch) -> None:
        self.project, self._patch = project, patch
        self.arguments: list[str] = []
        self.environment: dict[str, str] = {}
        for module in (deploy_module, drift_module):
            patch.setattr(module, "open_asked", lambda _: (None, project.declared("")))

    def __call__(
        self,
        name: str,
        events: list[Event],
        *arguments: str,
        status: int = 0,
        answer: str | None = None,
        ends: bool = True,
    ) -> Result:
        def child(words: list[str], _: Path, environment: dict[str, str], *__: object) -> Told:
            self.arguments, self.environment = words, environment
            return Told(events, status, ends=ends)

        self._patch.setattr(run_module, "Child", child)
        if answer is not None:
            self._patch.setattr(deploy_module, "sys", SimpleNamespace(stdin=Terminal))
        words = [name, str(self.project.inventory), *arguments]
        return CliRunner().invoke(cli.main, words, input=answer)


@pytest.fixture
def fleet(project: Project, monkeypatch: pytest.MonkeyPatch) -> Command:
    return Command(project, monkeypatch)


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


def test_a_host_that_is_not_there_is_refused(fleet: Command) -> None:
    result = fleet("deploy", CHANGES, "gpu9", "--yes")
    assert result.exit_code == 2
    assert "gpu9: no such host in this inventory" in result.stderr


def test_deploy_says_what_changed_and_what_comes_next(fleet: Command) -> None:
    result = fleet("deploy", CHANGES, HERE, "--yes")
    assert result.exit_code == 0, result.output
    assert result.stderr == f"{HERE}  changed  Change\n"
    first, last = result.stdout.splitlines()
    assert first.startswith(f"{HERE}  changed: Change (")
    assert last == f"Next, prove it: fleet verify {fleet.project.inventory}"


def test_deploy_without_a_change_is_quiet(fleet: Command) -> None:
    result = fleet("deploy", NO_CHANGE, HERE, "--yes")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.splitlines()[0] == f"Nothing to change on {HERE}."


def test_a_failure_has_its_reason_on_the_screen(fleet: Command) -> None:
    result = fleet("deploy", FAILS, "--yes", status=1)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{HERE}  FAILED after ")
    assert lines[0].endswith(": Break: no such release")
    assert lines[1] == f"{NOWHERE}  FAILED: Could not connect"
    assert lines[2].endswith(f"fleet deploy {fleet.project.inventory}")
    assert "fleet verify" not in result.stdout


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_one_question_after_the_plan(fleet: Command, answer: str, status: int) -> None:
    result = fleet("deploy", [*PLAN, *CHANGES], HERE, answer=answer)
    assert result.exit_code == status, result.output
    assert result.stderr.startswith(f"{HERE}  would change 1:\n    Change\nDeploy to 1 host?")
    assert ("changed: Change" in result.stdout) == (status == 0)
    assert ("Nothing was deployed." in result.stdout) == (status != 0)
    assert not {"--yes", "--dry"} & {*fleet.arguments}


def test_dry_tells_the_plan(fleet: Command) -> None:
    result = fleet("deploy", [*PLAN, *CHANGES], HERE, "--dry")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [f"{HERE}  would change 1:", "    Change"]
    assert "--dry" in fleet.arguments


def test_options_are_pyinfras_own(fleet: Command) -> None:
    options = ["--at-once", "--serial", "--parallel", "3", "--diff", "--force"]
    fleet("deploy", CHANGES, HERE, "--yes", *options)
    assert fleet.arguments == [
        str(fleet.project.inventory), "deploy.py", "--limit", HERE, "--yes", "--diff", "--serial",
        "--parallel", "3", "--data", "gateway_roll=at-once",
    ]  # fmt: skip
    assert fleet.environment == {"LLM_FLEET_FORCE": "1"}
    fleet("deploy", CHANGES, "--yes")
    assert fleet.arguments == [str(fleet.project.inventory), "deploy.py", "--yes"]
    assert fleet.environment == {}


def test_json_is_one_object(fleet: Command) -> None:
    values = as_json(fleet("deploy", [UNREACHED[0], *CHANGES], "--yes", "--json", status=1))
    assert set(values) == {"schema", "dry", "deployed", "hosts", "log"}
    assert values["schema"] == "fleet-deploy/1"
    assert (values["dry"], values["deployed"]) == (False, True)
    assert Path(values["log"]).exists()
    here, nowhere = values["hosts"][HERE], values["hosts"][NOWHERE]
    assert set(here) == set(nowhere) == HOST_KEYS
    assert (here["changed"], here["failed"]) == (["Change"], None)
    assert nowhere["failed"] == "Could not connect"


@pytest.mark.parametrize("name", ["deploy", "drift"])
@pytest.mark.parametrize(("events", "status"), [([], 1), ([], 0), (CHANGES, 1)])
def test_a_run_that_tells_nothing_is_no_success(
    fleet: Command, name: str, events: list[Event], status: int
) -> None:
    """... nor is one that ends badly, and says of no host why."""
    options = ["--yes"] if name == "deploy" else []
    result = fleet(name, events, HERE, *options, status=status)
    assert result.exit_code == 2
    assert f"pyinfra ended with {status}; all that it said is in /" in result.stderr


@pytest.mark.parametrize("arguments", [["deploy", "--yes"], ["deploy", "--dry"], ["drift"]])
def test_of_a_run_that_breaks_nothing_is_made_up(fleet: Command, arguments: list[str]) -> None:
    """... when one host has failed, either: of the other it is not known what came of it."""
    name, *options = arguments
    result = fleet(name, UNREACHED[:1], *options, status=1, ends=False)
    assert result.exit_code == (1 if name == "deploy" else 2)
    assert "Nothing" not in result.stdout
    [line] = [line for line in result.stdout.splitlines() if line.startswith(HERE)]
    assert line.startswith(f"{HERE}  not known: pyinfra ended early, see /")
    host = as_json(fleet(name, UNREACHED[:1], *options, "--json", ends=False))["hosts"][HERE]
    assert host["failed" if name == "deploy" else "not_known"] == line.removeprefix(f"{HERE}  ")


@pytest.mark.parametrize("events", [PLAN, [*PLAN, *CHANGES]])
def test_a_run_that_breaks_after_its_plan_is_no_success(
    fleet: Command, events: list[Event]
) -> None:
    """... whatever it ends with; a dry run has told its plan last."""
    for options in ({"answer": "y\n"}, {}):
        result = fleet(
            "deploy", events, HERE, *([] if options else ["--dry"]), ends=False, **options
        )
        assert result.exit_code == 2
        assert "pyinfra ended with 0; all that it said is in /" in result.stderr


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([{"event": "planned"}], 0),
        (PLAN, 1),
        # Drift is drift, whoever could not be asked besides; without any, that is what matters.
        ([UNREACHED[0], *PLAN], 1),
        (UNREACHED, 2),
    ],
)
def test_drift_ends_as_a_timer_needs_it(fleet: Command, events: list[Event], status: int) -> None:
    result = fleet("drift", events, "--json")
    assert result.exit_code == status, result.output
    values = as_json(result)
    assert values["schema"] == "fleet-drift/1"
    assert set(values) == {"schema", "hosts"}
    here, nowhere = values["hosts"][HERE], values["hosts"][NOWHERE]
    assert set(here) == {"would_change", "would_restart", "not_known"}
    assert here["would_change"] == (["Change"] if status == 1 else [])
    assert nowhere["not_known"] == ("Could not connect" if UNREACHED[0] in events else None)


def test_drift_is_read_by_people_too(fleet: Command) -> None:
    result = fleet("drift", [UNREACHED[0], *PLAN])
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"{HERE}  would change 1:",
        "    Change",
        f"{NOWHERE}  cannot be deployed: Could not connect",
    ]
