"""What of vLLM's settings is refused, each by one line with host, key, value and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.vllm.flags import OURS, words_of
from tests.fleets import EDGE, GPU, Hosts, fleet_of
from tests.unit.refusals import assert_refused
from tests.unit.vllm.servers import IMAGE, SERVER, UUIDS

OTHER = {**SERVER, "name": "other", "served_names": ["other"], "port": 8001}


def host(server: dict[str, Any] | None = None, *others: dict[str, Any], **data: Any) -> Hosts:
    settings = {
        "private_address": "10.0.0.11",
        "docker_enabled": True,
        "vllm_image": IMAGE,
        "vllm_listen": "private",
        "vllm_servers": [{**SERVER, **(server or {})}, *others],
        **data,
    }
    kept = {key: value for key, value in settings.items() if value is not None}
    return {"gpu1": ("vllm", kept), "edge": EDGE}


def beside(server: dict[str, Any] | None = None, **ollama: Any) -> Hosts:
    """The host with Ollama on it, too."""
    gpu1 = host(server)["gpu1"][1]
    settings = {**GPU[1], "gpu_count": None, **gpu1, **ollama}
    kept = {key: value for key, value in settings.items() if value is not None}
    return {"gpu1": ("gpu vllm", kept), "edge": EDGE}


APART = [{"name": "a", "port": 11434, "gpus": [UUIDS[0]]}]
REFUSED: dict[str, tuple[Hosts, list[str]]] = {
    # Without the gateway, which would say the same.
    "no server": (
        {"gpu1": host(vllm_servers=[])["gpu1"]}, ["vllm_servers is empty", "declare a server"]),
    "no image": (host(vllm_image=None), ["vllm_image is missing", "vllm/vllm-openai:<version>@"]),
    "image without digest": (
        host(vllm_image="vllm/vllm-openai:v0.32.0"), ["vllm_image", "with its tag and its digest"]),
    "no Docker": (host(docker_enabled=None), ["vllm_runtime = 'docker'", "docker_enabled = True"]),
    "no toolkit": (host(toolkit_enabled=False), ["toolkit_enabled = False", "vllm_runtime"]),
    "no lock": (host(vllm_runtime="venv"), ["vllm_lock is missing", "--generate-hashes"]),
    "a name twice": (host({}, {**OTHER, "name": "gpt-oss"}), ["vllm_servers", "declared twice"]),
    "a GPU twice": (host({}, OTHER), ["gpt-oss and other both have the same GPU", "shared_gpus"]),
    "all GPUs beside one": (host({"gpus": "all"}, OTHER), ["both have the same GPU"]),
    "more than a GPU": (
        host({"shared_gpus": True}, {**OTHER, "shared_gpus": True, "memory_share": 0.2}),
        ["memory_share = 0.9 and 0.2", "lower them to 1"]),
    "names half the same": (
        host({}, {**OTHER, "gpus": [], "served_names": ["gpt-oss:120b"]}),
        ["both serve gpt-oss:120b", "the same served_names"]),
    "names of other weights": (
        host({}, {**OTHER, "gpus": [], "served_names": SERVER["served_names"],
                  "weights": "/srv/weights/other"}),
        ["with other weights", "other served_names"]),
    "parallel over fewer": (host({"tensor_parallel": 4}), ["tensor_parallel", "takes 4 GPUs"]),
    "stages over fewer": (
        host({"tensor_parallel": 2, "flags": {"pipeline-parallel-size": 2}}), ["takes 4 GPUs"]),
    "prefill over fewer": (
        host({"tensor_parallel": 2, "flags": {"prefill-context-parallel-size": 2}}),
        ["takes 4 GPUs"]),
    "parallel on the CPU": (host({"gpus": [], "tensor_parallel": 2}), ["tensor_parallel"]),
    "shared and none": (host({"gpus": [], "shared_gpus": True}), ["shared_gpus: it has no GPU"]),
    "weights by a name that nobody knows": (
        host({"weights": "large"}), ["weights = 'large'", "declare some by that name"]),
    "weights in a home": (host({"weights": "/home/me/w"}), ["weights", "/srv/weights"]),
    "weights by a relative path": (host({"weights": "/srv/../etc"}), ["weights", "without '..'"]),
    "a name twice for clients": (host({"served_names": ["a", "a"]}), ["served_names", "once"]),
    "no name for clients": (host({"served_names": []}), ["served_names"]),
    "share of nothing": (host({"memory_share": 0.0}), ["memory_share", "0.05"]),
    "old driver branch": (host(driver_branch=570), ["driver_branch = 570", "branch 580"]),
    "old driver": (host(driver_version="575.57.08"), ["driver_version = '575.57.08'", "580"]),
    "watch shorter than its turn": (
        host(vllm_watch_timeout="10s"), ["vllm_watch_timeout = '10s'", "vllm_watch_every"]),
    "gateway cannot reach it": (host(vllm_listen="loopback"), ["vllm_listen = 'loopback'"]),
    "a secret in the environment": (
        host({"env": {"HF_TOKEN": "x"}}), ["env: HF_TOKEN looks like a secret"]),
    "secrets by the name of tokens": (
        host({"env": {"HUB_TOKENS": "x"}}), ["env: HUB_TOKENS looks like a secret"]),
    "a password in an address": (
        host({"env": {"TRACES": "http://me:word@host"}}), ["env: TRACES looks like a secret"]),
    "our own variable": (host({"env": {"HF_HUB_OFFLINE": "0"}}), ["set by this project"]),
    **{
        f"{name} in the environment": (host({"env": {name: "1"}}), [f"env: {name}"])
        for name in ("VLLM_API_KEY", "VLLM_SERVER_DEV_MODE", "LD_PRELOAD", "PYTHONPATH")
    },
    **{
        f"our flag {name}": (host({"flags": {name: "1"}}), [f"flags: {name}", OURS[name]])
        for name in OURS
    },
    **{
        f"refused flag {name}": (host({"flags": {name: "1"}}), [f"flags: {name} is refused"])
        for name in ("api-key", "config", "tool-server", "ssl-keyfile")
    },
    "the beginning of our flag": (host({"flags": {"max-mod": 5}}), ["max-mod is set by this"]),
    "a part of our flag": (host({"flags": {"model.x": "1"}}), ["model.x is set by this"]),
    "a flag with dashes": (host({"flags": {"--seed": 1}}), ["flags", "without the dashes"]),
    "a flag with underscores": (host({"flags": {"max_num_seqs": 1}}), ["flags", "flag's name"]),
    "a flag that begins with no": (
        host({"flags": {"no-enable-x": True}}), ["no-enable-x", "'enable-x' = False"]),
    "a flag with a list": (host({"flags": {"seed": [1]}}), ["flags", "neither true or false"]),
    "a flag with a quote": (host({"flags": {"x": "a'b"}}), ["flags", "without quotes"]),
    "stages of none": (host({"flags": {"pipeline-parallel-size": 0}}), ["not a number of GPUs"]),
    "Ollama on all GPUs": (
        beside({"served_names": ["x"]}), ["has GPUs that ollama.service uses too", "gpus"]),
    "Ollama on one of them": (
        beside({"served_names": ["x"]}, ollama_instances=APART), ["ollama@a.service uses too"]),
    "a name of Ollama's": (
        beside({"name": "a", "gpus": [UUIDS[1]], "served_names": ["x"]}, ollama_instances=APART),
        ["'a' is the name of one of ollama_instances", "rename one"]),
    "a model of Ollama's": (
        beside({"gpus": [UUIDS[1]], "served_names": ["gpt-oss:20b"]}, ollama_instances=APART),
        ["gpt-oss:20b is one of ollama_models", "twice"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, own_secrets: Path) -> None:
    hosts, parts = REFUSED[case]
    assert_refused(hosts, "gpu1", parts, own_secrets)


ACCEPTED: dict[str, Hosts] = {
    "apart": host({"gpus": [0]}, {**OTHER, "gpus": [1]}),
    "shared": host(
        {"shared_gpus": True, "memory_share": 0.5},
        {**OTHER, "shared_gpus": True, "memory_share": 0.5},
    ),
    "the same model twice": host({"gpus": [0]}, {**SERVER, "name": "b", "port": 1, "gpus": [1]}),
    "beside Ollama": beside({"gpus": [UUIDS[1]], "served_names": ["x"]}, ollama_instances=APART),
    "parallel in what takes no GPU more": host({"flags": {"decode-context-parallel-size": 2}}),
    "numbers of tokens": host(
        {"env": {"VLLM_MAX_TOKENS_PER_EXPERT_FP4_MOE": "1", "MAX_OUTPUT_TOKENS": "1"}}
    ),
    "an older build": host(driver_branch=575, vllm_driver_branch=575),
    "on the CPU without a toolkit": host({"gpus": []}, toolkit_enabled=False),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted(case: str) -> None:
    assert fleet_of(ACCEPTED[case])["gpu1"]


def test_flags_are_written_as_their_type_says() -> None:
    flags = {"a": True, "b": False, "c": 1, "d": 0.5, "e": "text", "f.part": 2}
    assert list(words_of(flags)) == [
        "--a", "--no-b", "--c", "1", "--d", "0.5", "--e", "text", "--f.part", "2",
    ]  # fmt: skip
