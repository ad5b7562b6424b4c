"""What of Ollama's settings is refused, and the environment that follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.ollama.servers import instances_of
from fleet.ollama.settings import Ollama, ollama_environment
from tests.fleets import (
    Hosts,
    alternative,
    fleet_of,
)
from tests.unit.exposing import exposing
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    **{
        f"models in {path}": (
            pair({"ollama_models_dir": path}),
            "gpu1",
            [f"ollama_models_dir = {path!r}", f": {read} is no place", "under /srv/, /mnt/"],
        )
        for path, read in {
            "/etc": "/etc",
            "//etc": "/etc",
            "/./etc/": "/etc",
            "/srv": "/srv",
            "/srv//.": "/srv",
            "/usr/lib/models": "/usr/lib/models",
            "/var/lib": "/var/lib",
            "/var/lib/dpkg": "/var/lib/dpkg",
            # Our own releases, and the home, which has another mode.
            "/opt/ollama": "/opt/ollama",
            "/var/lib/ollama": "/var/lib/ollama",
            "/var/lib/ollama-other": "/var/lib/ollama-other",
            "/database/x": "/database/x",
            # What the hardened units do not see.
            "/home/models": "/home/models",
            "/run/models": "/run/models",
        }.items()
    },
    "no model": (pair({"ollama_models": []}), "gpu1", ["ollama_models = []", "name at least one"]),
    "token in the environment": (
        pair({"ollama_env": {"HF_TOKEN": "x"}}),
        "gpu1",
        ["ollama_env", "HF_TOKEN looks like a secret"],
    ),
    "file of a key in the environment": (
        pair({"ollama_env": {"API_KEY_FILE": "/etc/key"}}),
        "gpu1",
        ["ollama_env", "API_KEY_FILE looks like a secret"],
    ),
    "password in the environment": (
        pair({"ollama_env": {"ALL_PROXY": "http://user:word@proxy:3128"}}),
        "gpu1",
        ["ollama_env", "ALL_PROXY looks like a secret"],
    ),
    "bad version": (
        pair({"ollama_version": "latest"}),
        "gpu1",
        ["ollama_version = 'latest'", "0.32.7"],
    ),
    "version with a v": (
        pair({"ollama_version": "v0.32.7"}),
        "gpu1",
        ["ollama_version = 'v0.32.7'", "a version of three numbers, such as 0.32.7"],
    ),
    "our variable in ollama_env": (
        pair({"ollama_env": {"OLLAMA_HOST": "0.0.0.0"}}),
        "gpu1",
        ["ollama_env", "OLLAMA_HOST is set by this project", "use its setting"],
    ),
    "an unset variable of ours in ollama_env": (
        pair({"ollama_env": {"HTTPS_PROXY": "http://proxy"}}),
        "gpu1",
        ["ollama_env", "HTTPS_PROXY is set by this project"],
    ),
    "prompts on disk": (
        pair({"ollama_env": {"OLLAMA_DEBUG_LOG_REQUESTS": "1"}}),
        "gpu1",
        ["OLLAMA_DEBUG_LOG_REQUESTS", "writes prompts to disk"],
    ),
    "a unit in the overhead": (
        pair({"ollama_env": {"OLLAMA_GPU_OVERHEAD": "1GiB"}}),
        "gpu1",
        ["OLLAMA_GPU_OVERHEAD = '1GiB' is no number", "1073741824"],
    ),
    "quantized cache without flash attention": (
        pair({"ollama_kv_cache_type": "q8_0", "ollama_flash_attention": False}),
        "gpu1",
        ["ollama_kv_cache_type", "q8_0", "ollama_flash_attention = True"],
    ),
    "unknown cache type": (
        pair({"ollama_kv_cache_type": "q2"}),
        "gpu1",
        ["ollama_kv_cache_type = 'q2'", "'f16', 'q8_0' or 'q4_0'"],
    ),
    "exception from Ollama's own lack of a proxy": (
        pair({"ollama_no_proxy": ["mirror"]}),
        "gpu1",
        ["ollama_no_proxy: there is no proxy to leave out", "set ollama_https_proxy"],
    ),
    "proxy for Ollama's own calls": (
        pair({"ollama_env": {"HTTP_PROXY": "http://proxy:3128"}}),
        "gpu1",
        ["ollama_env: HTTP_PROXY would catch calls", "use ollama_https_proxy"],
    ),
    "proxy for Ollama's own calls in lower case": (
        pair({"ollama_env": {"http_proxy": "http://proxy:3128"}}),
        "gpu1",
        ["ollama_env['http_proxy']"],
    ),
    "proxy for an instance's own calls": (
        pair({"ollama_instances": [{"name": "a", "port": 1, "env": {"HTTP_PROXY": "http://x"}}]}),
        "gpu1",
        ["ollama_instances: a: ollama_env: HTTP_PROXY would catch calls"],
    ),
    "more to load than Ollama keeps": (
        pair(
            {
                "ollama_models": [{"name": "a", "load": True}, {"name": "b", "load": True}],
                "ollama_max_loaded_models": 1,
            }
        ),
        "gpu1",
        ["ollama_models: a, b are to be loaded", "ollama_max_loaded_models = 1", "raise it"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


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
    fleet = fleet_of(alternative("gpu1", "edge"))
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


def test_what_opens_something_is_marked() -> None:
    """Whoever adds a setting that can open something adds it here, and so writes its warning."""
    assert exposing(Ollama) == {"listen", "no_cloud", "debug"}
