"""Several Ollama servers on a host: what each of them has, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.declare.fleet import FleetHost
from fleet.kit.errors import SettingsError
from fleet.ollama.servers import instances_of
from tests.fleets import EDGE, GPU, fleet_of

A: dict[str, Any] = {"name": "a", "port": 11434, "gpus": [0, 1]}
B: dict[str, Any] = {"name": "b", "port": 11435, "gpus": [2]}
UUID = "GPU-5a3f1c00-0000-4000-8000-000000000000"
IMAGE = f"ollama/ollama:0.32.7@sha256:{'ab' * 32}"


def host(*instances: dict[str, Any], **settings: Any) -> FleetHost:
    data = {**GPU[1], **settings}
    if instances:
        data["ollama_instances"] = list(instances)
    return fleet_of({"gpu1": ("gpu", data)})["gpu1"]


def refusal(*instances: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        host(*instances, **settings)
    [problem] = refused.value.problems
    return problem


def test_single_server_is_an_instance_without_a_name() -> None:
    [only] = instances_of(host())
    assert (only.name, only.unit, str(only.endpoint)) == (None, "ollama.service", "10.0.0.11:11434")
    assert (only.gpus, only.runtime) == ("all", "systemd")
    assert only.environment([UUID]) == only.env, "it sees what there is, as without instances"


def test_gateway_has_none() -> None:
    fleet = fleet_of({"gpu1": GPU, "edge": EDGE})
    assert instances_of(fleet["edge"]) == ()


def test_instance_has_what_its_host_has_but_for_its_own() -> None:
    a, b = instances_of(
        host(
            {**A, "context_length": 8192, "keep_alive": -1, "env": {"X": "1"}},
            B,
            ollama_context_length=4096,
            ollama_num_parallel=4,
            ollama_env={"X": "0", "Y": "0"},
        )
    )
    assert (a.unit, str(a.endpoint)) == ("ollama@a.service", "10.0.0.11:11434")
    assert (b.unit, str(b.endpoint)) == ("ollama@b.service", "10.0.0.11:11435")
    wanted = {"OLLAMA_CONTEXT_LENGTH": "8192", "OLLAMA_KEEP_ALIVE": "-1", "X": "1", "Y": "0"}
    assert wanted.items() <= a.env.items()
    wanted = {"OLLAMA_CONTEXT_LENGTH": "4096", "OLLAMA_KEEP_ALIVE": "5m", "X": "0", "Y": "0"}
    assert wanted.items() <= b.env.items()
    assert [item.env["OLLAMA_NUM_PARALLEL"] for item in (a, b)] == ["4", "4"]
    assert [item.env["OLLAMA_HOST"] for item in (a, b)] == ["10.0.0.11:11434", "10.0.0.11:11435"]
    assert len({item.env["OLLAMA_MODELS"] for item in (a, b)}) == 1


@pytest.mark.parametrize(
    ("gpus", "uuids", "visible"),
    [
        ([0, 1], ["GPU-x", "GPU-y"], "GPU-x,GPU-y"),
        ("all", ["GPU-x"], "GPU-x"),
        ("all", [], None),
        ([], [], "-1"),
    ],
    ids=["by index", "all", "all of none", "none of some"],
)
def test_gpus_are_given_by_uuid(gpus: Any, uuids: list[str], visible: str | None) -> None:
    [instance] = instances_of(host({**A, "gpus": gpus}))
    assert instance.environment(uuids).get("CUDA_VISIBLE_DEVICES") == visible


def test_container_listens_on_its_own_addresses() -> None:
    """Docker publishes the port on the declared one, and nowhere else."""
    [only] = instances_of(host({**A, "runtime": "docker"}, docker_enabled=True, ollama_image=IMAGE))
    assert only.env["OLLAMA_HOST"] == "0.0.0.0:11434"
    assert str(only.endpoint) == "10.0.0.11:11434"


@pytest.mark.parametrize(
    ("instances", "settings", "words"),
    [
        ([A, {**B, "name": "a"}], {}, ["'a' is declared twice", "rename one"]),
        (
            [A, {**B, "port": 11434}],
            {},
            ["ollama_instances a and ollama_instances b are all 11434", "a port of its own"],
        ),
        (
            [A, {**B, "port": 22}],
            {},
            ["ssh_port and ollama_instances b are all 22"],
        ),
        (
            [A, {**B, "gpus": [1]}],
            {},
            ["a has gpus = [0, 1] and b has [1]", "shared_gpus = True to both"],
        ),
        (
            [A, {**B, "gpus": [1], "shared_gpus": True}],
            {},
            ["a has gpus = [0, 1] and b has [1]"],
        ),
        ([A, {**B, "gpus": "all"}], {}, ["b has 'all'"]),
        ([{**A, "gpus": [UUID]}, {**B, "gpus": [UUID]}], {}, [UUID, "give each its own"]),
        (
            [{**A, "gpus": [0, 0]}],
            {},
            ["ollama_instances[0]['gpus'] = [0, 0]", "names a GPU twice"],
        ),
        ([{**A, "gpus": ["0"]}], {}, ["'0' is no GPU", "`nvidia-smi -L`"]),
        ([{**A, "gpus": [True]}], {}, ["True is no GPU"]),
        ([{**A, "gpus": [UUID.upper()]}], {}, ["lower-case"]),
        ([{**A, "gpus": 0}], {}, ["['gpus'] = 0", "write [0, 1], or their UUIDs"]),
        (
            [{**A, "context_lenght": 4096}],
            {},
            ["ollama_instances[0]['context_lenght'] = 4096", "did you mean context_length?"],
        ),
        (
            [{**A, "colour": "red"}],
            {},
            ["['colour'] = 'red'", "unknown key; docs/settings.md lists every key"],
        ),
        ([{**A, "context_length": 8}], {}, ["['context_length'] = 8", "greater than or equal"]),
        ([{**A, "name": "A b"}], {}, ["['name'] = 'A b'"]),
        ([{"port": 11435}], {}, ["ollama_instances[0] = {'port': 11435}", "'name' is missing"]),
        (
            [{**A, "kv_cache_type": "q8_0"}],
            {"ollama_flash_attention": False},
            ["ollama_instances: a: ollama_kv_cache_type", "ollama_flash_attention = True"],
        ),
        (
            [{**A, "env": {"OLLAMA_HOST": "0.0.0.0"}}],
            {},
            ["ollama_instances: a: ollama_env: OLLAMA_HOST is set by this project"],
        ),
        (
            [{**A, "env": {"CUDA_VISIBLE_DEVICES": "0"}}],
            {},
            ["CUDA_VISIBLE_DEVICES is what `gpus`"],
        ),
        ([A], {"ollama_models": ["auto"]}, ["'auto' goes by the memory of all", "name the model"]),
        ([A], {"ollama_port": 11500}, ["ollama_port = 11500: has no effect", "leave it out"]),
        (
            [{**A, "runtime": "docker"}],
            {"ollama_image": IMAGE},
            ["a: runtime = 'docker' needs Docker", "set docker_enabled = True"],
        ),
        (
            [{**A, "runtime": "docker"}],
            {"docker_enabled": True},
            ["needs ollama_image", "'ollama/ollama:0.32.7@sha256:...'", "imagetools inspect"],
        ),
        (
            [{**A, "runtime": "docker"}],
            {"docker_enabled": True, "ollama_image": IMAGE.replace("0.32.7", "0.31.0")},
            ["the tag 0.31.0 is not ollama_version = '0.32.7'"],
        ),
        (
            [{**A, "runtime": "docker"}],
            {"docker_enabled": True, "ollama_image": "ollama/ollama:0.32.7"},
            ["ollama_image = 'ollama/ollama:0.32.7'"],
        ),
        (
            [{**A, "runtime": "docker"}],
            {"docker_enabled": True, "ollama_image": IMAGE, "toolkit_enabled": False},
            ["toolkit_enabled = False", "could not see a GPU", "gpus = []"],
        ),
    ],
)
def test_refused(instances: list[Any], settings: dict[str, Any], words: list[str]) -> None:
    problem = refusal(*instances, **settings)
    assert problem.startswith("gpu1: ")
    assert [word for word in words if word not in problem] == [], problem


def test_gpus_may_be_shared_by_all_that_say_so() -> None:
    shared = {"gpus": "all", "shared_gpus": True}
    assert len(instances_of(host({**A, **shared}, {**B, **shared}))) == 2


def test_processor_alone_is_nobodys_gpu() -> None:
    assert len(instances_of(host({**A, "gpus": []}, {**B, "gpus": "all"}))) == 2
