"""The models' own steps."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from fleet.facts.jobs import Job, ModelsJob
from fleet.facts.ollama import OllamaModels
from fleet.facts.units import Unit, UnitState
from tests.plan.conftest import from_bare, in_declared_state
from tests.plan.simulation import RUNNING, Answers, bare, job, plan, still_running

HOSTS = {"gpu1": ("gpu", {})}
PROVIDE = "Models | Provide the models"
START = (
    "systemctl reset-failed --quiet ollama-models.service 2>/dev/null; "
    "systemctl start --no-block ollama-models.service"
)


def report(phase: str, completed: int = 0) -> tuple[str, ...]:
    entry = {"phase": phase, "completed": completed, "total": 100, "rate": 10, "error": ""}
    return (json.dumps({"models": {"gpt-oss:20b": entry}}),)


@pytest.fixture
def answers() -> Answers:
    """A converged GPU host, but for its only model."""
    host = in_declared_state("gpu only", from_bare("gpu only"))["gpu1"]
    return host | {OllamaModels: lambda url: {}}


def provide(answers: Answers, **settings: Any) -> list[str]:
    return plan({"gpu1": ("gpu", settings)}, {"gpu1": answers}).step("gpu1", PROVIDE).lines


def test_from_bare() -> None:
    planned = from_bare("gpu only")
    assert [name for name in planned.names("gpu1") if name.startswith("Models")] == [
        "Models | Install the loader",
        "Models | Install the loader's unit",
        "Models | Run the loader at boot",
        PROVIDE,
    ]
    assert planned.step("gpu1", PROVIDE).lines == [START]


def test_ollama_runs_before_the_loader() -> None:
    for scenario in ("gpu only", "both on one", "alternative"):
        planned = from_bare(scenario)
        [host] = [name for name in planned.steps if name != "edge"]
        ready = planned.index(host, r"curl .*/api/version")
        assert ready < planned.index(host, r"systemctl start --no-block ollama-models\.service")


def test_present_model_starts_nothing(answers: Answers) -> None:
    answers[OllamaModels] = lambda url: {"gpt-oss:20b": {}, "other:1": {}}
    assert plan(HOSTS, {"gpu1": answers}).order == []


def test_one_missing_model_starts_the_loader(answers: Answers) -> None:
    answers[OllamaModels] = lambda url: {"gpt-oss:20b": {}}
    lines = provide(answers, ollama_models=["gpt-oss:20b", "embed"])
    assert lines == [START]


def test_name_without_a_tag_is_found_as_ollama_lists_it(answers: Answers) -> None:
    answers[OllamaModels] = lambda url: {"embed:latest": {}}
    assert provide(answers, ollama_models=["embed"]) == []


def test_api_is_asked_where_it_listens() -> None:
    asked = []
    host = bare() | {OllamaModels: lambda url: asked.append(url) or {}}
    plan({"gpu1": ("gpu", {"ollama_port": 12000})}, {"gpu1": host})
    assert set(asked) == {"http://127.0.0.1:12000"}


PULLING = [Job("activating", "success", report("pulling", n)) for n in (10, 50, 90)]
READY = Job("inactive", "success", report("ready", 100))


def test_loader_is_followed_to_its_end(answers: Answers) -> None:
    """Started (which systemd ignores for one that runs), then looked at until it is done."""
    looks = []
    look = job(*PULLING, READY)

    def watched(unit: str, path: str) -> Job:
        looks.append(look())
        return looks[-1]

    answers[ModelsJob] = watched
    assert provide(answers) == [START]
    assert looks[-4:] == [*PULLING, READY]


def test_failed_loader_fails_the_host_with_its_journal(answers: Answers) -> None:
    answers[ModelsJob] = job(Job("failed", "exit-code", report("failed")))
    start, evidence = provide(answers)
    assert start == START
    assert evidence.startswith("{ false ; } || { journalctl")
    assert "-u ollama-models.service >&2; exit 1; }" in evidence


def test_deploy_gives_up_waiting_and_says_so(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is the deploy's own: 10 min a look."""
    now = iter(range(0, 1_000_000, 600))
    monkeypatch.setattr("fleet.operations.jobs.time.monotonic", lambda: next(now))
    answers[ModelsJob] = job(PULLING[1])
    start, message = provide(answers, models_wait_timeout="1h")
    assert start == START
    assert "@fake/gpu1: ollama-models.service still runs after 3600 s" in message
    assert "gpt-oss:20b: pulling 50 % of 100 B" in message
    assert "run the deploy again" in message
    assert message.endswith(">&2; exit 1")


def test_without_waiting_the_host_is_left_to_it(answers: Answers) -> None:
    answers[ModelsJob] = job(PULLING[1])
    assert provide(answers, models_wait=False) == [START]


def test_loader_starts_at_boot(answers: Answers) -> None:
    def state(unit: str, files: list[str]) -> Unit:
        enabled = "disabled" if unit == "ollama-models.service" else "enabled"
        return replace(RUNNING, file_state=enabled)

    answers[UnitState] = state
    answers[OllamaModels] = lambda url: {"gpt-oss:20b": {}}
    planned = plan(HOSTS, {"gpu1": answers})
    assert planned.names("gpu1") == ["Models | Run the loader at boot"]
    assert planned.lines("gpu1") == [
        "systemctl daemon-reload && systemctl enable --quiet ollama-models.service"
    ]


def test_configuration_on_the_host_is_the_declared_one() -> None:
    text, state = from_bare("alternative").files("gpu1")["/etc/llm-fleet/models.json"]
    config = json.loads(text)
    assert config["api"] == "http://[fd00::11]:21434"
    assert [model["source"] for model in config["models"]] == [
        "mirror.internal:5000/library/gpt-oss:120b",
        "hf.co/team/model:Q4",
        "mirror.internal:5000/library/embed:latest",
    ]
    assert (state.mode, state.user) == ("644", "root")


def test_planning_never_waits_for_a_running_loader(answers: Answers) -> None:
    """`--dry` tells at once; it must not sit there for the hours of somebody else's pull."""
    answers[ModelsJob] = still_running(PULLING[1])
    assert plan(HOSTS, {"gpu1": answers}).names("gpu1") == [PROVIDE]
