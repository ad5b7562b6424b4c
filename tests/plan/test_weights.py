"""The steps of weights: from bare, again, and when something is left to do."""

from __future__ import annotations

import pytest

from fleet.kit.errors import FleetError
from fleet.kit.facts.reach import FreeRoom
from fleet.kit.loaders import LoaderCheck
from fleet.weights.facts import WeightsState
from tests.plan.conftest import SCENARIOS, from_bare, in_declared_state
from tests.plan.simulation import Answers, Plan, bare, plan

PROVIDE, PRUNE = "Weights | Provide the weights", "Weights | Remove other weights"
GONE = {"toy/" + "cd" * 20: {"size": 7, "in_use": False}}


def planned(answers: Answers) -> Plan:
    hosts = {name: in_declared_state("alternative", from_bare("alternative"))[name]
             for name in SCENARIOS["alternative"]}  # fmt: skip
    return plan(SCENARIOS["alternative"], {**hosts, "gpu1": hosts["gpu1"] | answers})


def test_from_bare() -> None:
    names = from_bare("alternative").names("gpu1")
    assert [name for name in names if name.startswith("Weights")] == [
        "Weights | Install Python",
        "Weights | Create the group",
        "Weights | Create the user",
        "Weights | Create the directory",
        "Weights | Install the loader",
        "Weights | Install the loader's unit",
        "Weights | Look at the weights at each boot",
        PROVIDE,
    ]


def test_are_there_before_the_runtimes_that_read_them() -> None:
    bare_plan = from_bare("alternative")
    weights = bare_plan.index("gpu1", r"systemctl start llm-fleet-weights\.service")
    assert weights < bare_plan.index("gpu1", r"systemctl \w+ ollama\.service")


def test_host_without_weights_has_no_step() -> None:
    assert not [name for name in from_bare("gpu only").names("gpu1") if name.startswith("Weights")]


def test_what_is_left_to_do_is_done() -> None:
    left = LoaderCheck(True, ("toy",), {"toy": "is not there"}, to_fetch=1)
    assert planned({WeightsState: lambda config: left}).names("gpu1") == [PROVIDE]


def test_others_are_removed_when_nothing_reads_them_any_more() -> None:
    """By the loader's own user: root deletes nothing below a directory of somebody else."""
    check = LoaderCheck(True, ("toy",), undeclared=GONE, to_fetch=0)
    found = planned({WeightsState: lambda config: check})
    assert found.names("gpu1") == [PRUNE]
    [line] = found.step("gpu1", PRUNE).lines
    assert line.startswith("setpriv --reuid llm-fleet-weights ") or (
        "setpriv --reuid llm-fleet-weights " in line
    )
    names = [step.name for step in found.steps["gpu1"]]
    assert names.index(PRUNE) > max(
        place for place, name in enumerate(names) if name.startswith(("Ollama", "Models"))
    )


def test_too_small_a_disk_is_refused_before_anything_is_changed() -> None:
    hosts = {name: bare() for name in SCENARIOS["alternative"]}
    hosts["gpu1"][FreeRoom] = lambda paths: dict.fromkeys(paths, 10**9)
    with pytest.raises(FleetError, match=r"gpu1: weights_dir = /data/weights: 1\.0 GB free"):
        plan(SCENARIOS["alternative"], hosts)
