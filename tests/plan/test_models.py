"""The models' own steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from pyinfra.api import StringCommand
from pyinfra.context import ctx_state

from fleet.kit.commands import or_journal
from fleet.kit.facts.units import Unit, UnitState
from fleet.kit.loaders import ItemProgress, LoaderJob, LoaderRun
from fleet.models.choice import GIB, Memory
from fleet.models.facts import HostMemory, ModelsCheck, ModelsState
from tests.plan.conftest import from_bare, in_declared_state
from tests.plan.jobs import job, still_running
from tests.plan.simulation import RUNNING, Answers, bare, plan

HOSTS = {"gpu1": ("gpu", {})}
PROVIDE = "Models | Provide the models"
START = or_journal(
    StringCommand("systemctl daemon-reload; systemctl start ollama-models.service"),
    "ollama-models.service",
).get_raw_value()
DONE = ModelsCheck(True, ("gpt-oss:20b",))
MISSING = ModelsCheck(True, ("gpt-oss:20b",), {"gpt-oss:20b": "is not there"})


def report(phase: str, completed: int = 0) -> dict[str, ItemProgress]:
    return {"gpt-oss:20b": ItemProgress(phase, completed, 100, 10, "")}


@pytest.fixture
def answers() -> Answers:
    """A converged GPU host, but for its only model, which is there after a run of the loader."""
    host = in_declared_state("gpu only", from_bare("gpu only"))["gpu1"]
    return host | {ModelsState: checks(MISSING, DONE), LoaderJob: job(READY)}


def checks(*seen: ModelsCheck) -> Callable[..., ModelsCheck]:
    """The first while the deploy is planned; all in turn when it is executed."""
    left = list(seen)

    def look(config: str) -> ModelsCheck:
        if not ctx_state.get().is_executing:
            return seen[0]
        return left.pop(0) if len(left) > 1 else left[0]

    return look


def provide(answers: Answers, **settings: Any) -> list[str]:
    return plan({"gpu1": ("gpu", settings)}, {"gpu1": answers}).step("gpu1", PROVIDE).lines


def test_from_bare() -> None:
    planned = from_bare("gpu only")
    assert [name for name in planned.names("gpu1") if name.startswith("Models")] == [
        "Models | Install Python",
        "Models | Install the loader",
        "Models | Install the loader's unit",
        "Models | Run the loader whenever Ollama starts",
        PROVIDE,
    ]
    assert planned.step("gpu1", PROVIDE).lines == [START]


def test_ollama_runs_before_the_loader() -> None:
    for scenario in ("gpu only", "both on one", "alternative"):
        planned = from_bare(scenario)
        [host] = [name for name in planned.steps if name != "edge"]
        ready = planned.index(host, r"curl .*/api/version")
        assert ready < planned.index(host, r"systemctl start ollama-models\.service")


def test_converged_models_start_nothing(answers: Answers) -> None:
    answers[ModelsState] = lambda config: DONE
    assert plan(HOSTS, {"gpu1": answers}).order == []


def test_undeclared_models_are_reported(answers: Answers, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "pyinfra")
    undeclared = {"stray:1": {"size": 7_000_000, "in_use": False}}
    answers[ModelsState] = lambda config: replace(DONE, undeclared=undeclared)
    assert plan(HOSTS, {"gpu1": answers}).order == []
    assert "stray:1 (7.0 MB) is not declared: models_prune = True removes it" in caplog.text


def test_host_is_compared_with_what_is_declared_now(answers: Answers) -> None:
    """Not with the configuration that an earlier deploy left there."""
    asked = []

    def look(config: str) -> ModelsCheck:
        asked.append(json.loads(config))
        return DONE

    answers[ModelsState] = look
    plan({"gpu1": ("gpu", {"ollama_port": 12000})}, {"gpu1": answers})
    assert {config["api"] for config in asked} == {"http://127.0.0.1:12000"}


def test_what_the_running_loader_was_not_told_of_is_done_by_another(answers: Answers) -> None:
    answers[ModelsState] = checks(MISSING, MISSING, DONE)
    assert provide(answers) == [START, START]


def test_loader_that_says_nothing_of_the_kind_is_an_error(answers: Answers) -> None:
    """What it says is not known, so it is not "as declared"."""
    answers[ModelsState] = checks(ModelsCheck(why="what it says is no JSON"))
    *_, last = provide(answers)
    assert "whether the models are as declared is not known: what it says is no JSON" in last


def test_what_is_left_in_the_end_is_an_error(answers: Answers) -> None:
    answers[ModelsState] = checks(MISSING)
    *starts, error = provide(answers)
    assert starts == [START, START]
    assert "@fake/gpu1: gpt-oss:20b is not there" in error


class TestAuto:
    HOSTS: ClassVar = {"gpu1": ("gpu", {"ollama_models": ["auto"]})}
    CHOOSE = "Models | Choose the model by the host's memory"

    def test_choice_is_written_down_with_its_reason(self) -> None:
        host = bare() | {HostMemory: lambda: Memory((80 * GIB,), 64 * GIB)}
        [command] = plan(self.HOSTS, {"gpu1": host}).step("gpu1", self.CHOOSE).commands
        assert json.loads(command.connector_arguments["_stdin"][0]) == {
            "model": "gpt-oss:120b",
            "why": "1 GPU with 80 GiB: at least the 68 GiB that gpt-oss:120b needs",
        }

    def test_silent_gpu_is_an_error_of_its_host(self) -> None:
        host = bare() | {HostMemory: lambda: Memory((), 64 * GIB, has_silent_gpu=True)}
        [line] = plan(self.HOSTS, {"gpu1": host}).step("gpu1", self.CHOOSE).lines
        assert "needs nvidia-smi" in line
        assert line.endswith(">&2; exit 1")


PULLING = [LoaderRun("activating", "success", report("pulling", n)) for n in (10, 50, 90)]
READY = LoaderRun("inactive", "success", report("ready", 100))


def test_loader_is_followed_to_its_end(answers: Answers) -> None:
    """Started (which systemd ignores for one that runs), then looked at until it is done."""
    looks = []
    look = job(*PULLING, READY)

    def watched(unit: str, path: str) -> LoaderRun:
        looks.append(look())
        return looks[-1]

    answers[LoaderJob] = watched
    assert provide(answers) == [START]
    assert looks[-4:] == [*PULLING, READY]


def test_failed_loader_fails_the_host_with_its_journal(answers: Answers) -> None:
    answers[ModelsState] = lambda config: MISSING
    answers[LoaderJob] = job(LoaderRun("failed", "exit-code", report("failed")))
    start, evidence, *_ = provide(answers)
    assert start == START
    assert "-u ollama-models.service" in evidence
    assert "journalctl --no-pager -o cat -n 20" in evidence
    assert evidence.endswith("fi; exit 1")


def test_deploy_gives_up_waiting_and_says_so(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is the deploy's own: 10 min a look."""
    now = iter(range(0, 1_000_000, 600))
    monkeypatch.setattr("fleet.kit.jobs.time.monotonic", lambda: next(now))
    answers[LoaderJob] = job(PULLING[1])
    start, message = provide(answers, models_wait_timeout="1h")
    assert start == START
    assert "@fake/gpu1: ollama-models.service still runs after 3600 s" in message
    assert "gpt-oss:20b: pulling 50 % of 100 B" in message
    assert "run the deploy again" in message
    assert message.endswith(">&2; exit 1")


def test_without_waiting_the_host_is_left_to_it(answers: Answers) -> None:
    answers[LoaderJob] = job(PULLING[1])
    assert provide(answers, models_wait=False) == [START]


def test_loader_starts_at_boot(answers: Answers) -> None:
    def state(unit: str, files: list[str]) -> Unit:
        enabled = "disabled" if unit == "ollama-models.service" else "enabled"
        return replace(RUNNING, file_state=enabled)

    answers[UnitState] = state
    answers[ModelsState] = lambda config: DONE
    planned = plan(HOSTS, {"gpu1": answers})
    assert planned.names("gpu1") == ["Models | Run the loader whenever Ollama starts"]
    assert planned.lines("gpu1") == [
        "systemctl enable --quiet ollama-models.service",
    ]


def test_configuration_on_the_host_is_the_declared_one() -> None:
    text, state = from_bare("alternative").files("gpu1")["/etc/llm-fleet/models.json"]
    config = json.loads(text)
    assert config["api"] == "http://[fd00::11]:21434"
    assert [model["source"] for model in config["models"]] == [
        "mirror.internal:5000/library/gpt-oss:120b",
        "hf.co/team/model:Q4",
        "mirror.internal:5000/library/embed:latest",
        "analyst:latest",
        "house:latest",
    ]
    assert (state.mode, state.user) == ("644", "root")


def test_planning_never_waits_for_a_running_loader(answers: Answers) -> None:
    """`--dry` tells at once; it must not sit there for the hours of somebody else's pull."""
    answers[LoaderJob] = still_running(PULLING[1])
    assert plan(HOSTS, {"gpu1": answers}).names("gpu1") == [PROVIDE]
