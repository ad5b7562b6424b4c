"""The environment of the Ollama unit, name by name."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.ollama.servers import instances_of
from fleet.ollama.settings import Ollama, ollama_environment
from tests.fleets import ALTERNATIVE_GPU, EDGE, fleet_of


def environment(address: str = "127.0.0.1", **settings: Any) -> dict[str, str]:
    return ollama_environment(Ollama(**settings), address)


def test_defaults() -> None:
    assert environment() == {
        "HOME": "/var/lib/ollama",
        "OLLAMA_HOST": "127.0.0.1:11434",
        "OLLAMA_MODELS": "/var/lib/ollama/models",
        "OLLAMA_KEEP_ALIVE": "5m",
        "OLLAMA_LOAD_TIMEOUT": "5m",
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_MAX_LOADED_MODELS": "0",
        "OLLAMA_MAX_QUEUE": "512",
        "OLLAMA_KV_CACHE_TYPE": "f16",
        "OLLAMA_SCHED_SPREAD": "0",
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_DEBUG": "0",
    }


def test_alternative() -> None:
    """The whole environment of the second scenario, through the inventory."""
    fleet = fleet_of({"gpu1": ("gpu", ALTERNATIVE_GPU), "edge": ("gateway", {
        **EDGE[1], "private_address": "fd00::2"})})  # fmt: skip
    assert instances_of(fleet["gpu1"])[0].env == {
        "HOME": "/var/lib/ollama",
        "OLLAMA_HOST": "[fd00::11]:21434",
        "OLLAMA_MODELS": "/data/models",
        "OLLAMA_ORIGINS": "https://chat.internal,app://*",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_LOAD_TIMEOUT": "15m",
        "OLLAMA_CONTEXT_LENGTH": "131072",
        "OLLAMA_NUM_PARALLEL": "4",
        "OLLAMA_MAX_LOADED_MODELS": "2",
        "OLLAMA_MAX_QUEUE": "64",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "OLLAMA_SCHED_SPREAD": "1",
        "OLLAMA_NO_CLOUD": "0",
        "OLLAMA_NOPRUNE": "1",
        "OLLAMA_DEBUG": "1",
        "HTTPS_PROXY": "http://proxy.internal:3128",
        "NO_PROXY": "127.0.0.1,::1,localhost,mirror.internal,10.0.0.0/8",
        "OLLAMA_VULKAN": "1",
        "FORMAT": "50%h of $HOME",
    }


@pytest.mark.parametrize(("value", "text"), [(True, "1"), (False, "0"), (None, None)])
def test_booleans_are_1_and_0(value: bool | None, text: str | None) -> None:
    """Ollama takes any word that it cannot parse, `no` too, for true; unset is left out."""
    assert environment(flash_attention=value).get("OLLAMA_FLASH_ATTENTION") == text


@pytest.mark.parametrize(
    ("address", "host"),
    [("10.0.0.11", "10.0.0.11:11434"), ("fd00::11", "[fd00::11]:11434")],
)
def test_host_has_brackets_around_ipv6(address: str, host: str) -> None:
    assert environment(address)["OLLAMA_HOST"] == host


def test_number_of_seconds_is_kept_as_it_is() -> None:
    assert environment(keep_alive=-1)["OLLAMA_KEEP_ALIVE"] == "-1"


def test_without_a_proxy_nothing_is_said_of_proxies() -> None:
    assert not {"HTTPS_PROXY", "NO_PROXY"} & set(environment())


def test_local_calls_never_go_through_the_proxy() -> None:
    """... or the server could not reach its own inference process."""
    env = environment(https_proxy="http://proxy:3128/")
    assert env["HTTPS_PROXY"] == "http://proxy:3128"
    assert env["NO_PROXY"].split(",") == ["127.0.0.1", "::1", "localhost"]


def test_empty_extra_variable_is_left_out() -> None:
    assert "OLLAMA_VULKAN" not in environment(env={"OLLAMA_VULKAN": ""})
