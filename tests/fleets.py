"""Fleets to test with, declared in a line or two and loaded the way a deploy loads them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.inventory import Inventory

import fleet.declare.load
from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import PRODUCT_ROOT, Fleet
from fleet.declare.load import load_fleet
from tests import alternatives
from tests.alternatives import vllm

# Name of a host to its groups (with spaces between) and its data.
Hosts = Mapping[str, tuple[str, Mapping[str, Any]]]

# The smallest fleet on two machines.
GPU: tuple[str, Mapping[str, Any]] = (
    "gpu",
    {"private_address": "10.0.0.11", "ollama_listen": "private", "gpu_count": 0},
)
EDGE: tuple[str, Mapping[str, Any]] = (
    "gateway",
    {"private_address": "10.0.0.2", "gateway_keys": ["team-a"]},
)
# ... and on one.
BOX: tuple[str, Mapping[str, Any]] = (
    "gpu gateway",
    {"private_address": "10.0.0.5", "gateway_keys": ["team-a"], "gpu_count": 0},
)

# Each file of tests/alternatives is a host of its own, for one capability.
_OWN_HOSTS = [
    importlib.import_module(f"{alternatives.__name__}.{item.name}")
    for item in pkgutil.iter_modules(alternatives.__path__)
]
# Every setting that can differ from its default does: the second scenario of rendering and plans.
ALTERNATIVE_GPU: dict[str, Any] = {
    "private_address": "fd00::11",
    "ssh_port": 2222,
    "ollama_version": "0.40.0-rc1",
    "ollama_sha256": "ab" * 32,
    "ollama_release_url": "http://mirror.internal:8080/releases/",
    "ollama_port": 21434,
    "ollama_listen": "private",
    "ollama_models_dir": "/data/models",
    "ollama_models": [
        "gpt-oss:120b",
        {"name": "hf.co/team/model:Q4", "digest": "cd" * 32},
        "embed",
        {
            "name": "analyst",
            "base": "gpt-oss:120b",
            "system": "Be brief.",
            "template": "{{ .Prompt }}",
            "parameters": {"num_ctx": 131072, "temperature": 0.2, "stop": ["User:"]},
            "load": True,
            "keep_alive": "12h",
        },
        {"name": "house", "gguf": "/srv/house.gguf", "sha256": "ef" * 32},
    ],
    "ollama_origins": ["https://chat.internal", "app://*"],
    "ollama_keep_alive": "-1",
    "ollama_load_timeout": "15m",
    "ollama_context_length": 131072,
    "ollama_num_parallel": 4,
    "ollama_max_loaded_models": 2,
    "ollama_max_queue": 64,
    "ollama_flash_attention": True,
    "ollama_kv_cache_type": "q8_0",
    "ollama_sched_spread": True,
    "ollama_no_cloud": False,
    "ollama_debug": True,
    "ollama_https_proxy": "http://proxy.internal:3128",
    "ollama_no_proxy": ["mirror.internal", "10.0.0.0/8"],
    "ollama_env": {"OLLAMA_VULKAN": "1", "FORMAT": "50%h of $HOME"},
    "models_registry": "mirror.internal:5000",
    "models_registry_insecure": True,
    "models_cpu_offload": ["gpt-oss:120b"],
    "models_wait": False,
    "models_wait_timeout": "30m",
    "models_prune": True,
    "models_no_progress": "10m",
    "models_slow_rate": 2.5,
    "models_slow_window": "5m",
    "models_attempts": 9,
    "models_retry_delay": "10s",
    "models_retry_delay_max": "1h",
    "models_disk_reserve": 50.0,
    "weights": [
        {
            "name": "toy",
            "repository": "team/toy",
            "revision": "ab" * 20,
            "include": ["original/*", "*.json"],
            "exclude": ["*.bin"],
            "lock": str(Path(__file__).parent / "alternatives" / "toy.lock"),
            "source": "modelscope",
        }
    ],
    "weights_dir": "/data/weights",
    "weights_endpoint": "http://mirror.internal:8080/hub",
    "weights_modelscope_endpoint": "http://mirror.internal:8080/modelscope",
    "weights_https_proxy": "http://proxy.internal:3128",
    "weights_no_proxy": ["mirror.internal"],
    "weights_wait": False,
    "weights_wait_timeout": "30m",
    "weights_prune": True,
    "weights_no_progress": "10m",
    "weights_slow_rate": 2.5,
    "weights_slow_window": "5m",
    "weights_attempts": 9,
    "weights_retry_delay": "10s",
    "weights_retry_delay_max": "1h",
    "weights_disk_reserve": 50.0,
    "firewall_ssh_from": ["10.0.0.0/8", "fd00::/8"],
    "firewall_open_tcp": [9100, 9400],
    "firewall_open_udp": [51820],
    "firewall_open_protocols": ["esp", "vrrp"],
    "firewall_forward": [{"incoming": "wg0", "outgoing": "eth*"}],
    "firewall_open_to_containers": [21434],
    "firewall_container_interfaces": ["docker0", "dify0"],
    "firewall_log_drops": False,
    "firewall_confirm_within": "2m",
    "gpu_count": 0,
    "driver_source": "nvidia",
    "driver_branch": 595,
    "driver_version": "595.91.07",
    "driver_modules": "proprietary",
    "driver_hold": False,
    "driver_reboot": "together",
    "driver_reboot_timeout": "1h",
    "driver_mok_enrolled": True,
    "driver_repository_url": "http://mirror.internal:8080/cuda/repos",
    "driver_repository_fingerprint": "AB" * 20,
}
ALTERNATIVE_GATEWAY: dict[str, Any] = {
    "private_address": "fd00::2",
    "ssh_port": 2222,
    "gateway_listen": "any",
    "gateway_port": 8443,
    "gateway_keys": [
        "team-a",
        {"name": "team-b", "role": "admin", "expires": "2027-01-31T12:00:00+01:00"},
        {"name": "team-c", "rate": "90/m", "burst": 5, "concurrent": 2, "overrides": "allow"},
        {"name": "team-d", "rate": "2/s", "allow_from": ["10.0.0.0/8", "fd00::/8"]},
        {"name": "team-e", "tokens": "1.5M/d", "models": ["gpt-oss:120b"]},
    ],
    "gateway_aliases": {"gpt-4o": "gpt-oss:120b"},
    "gateway_fallbacks": {"gpt-oss:120b": "analyst"},
    "gateway_backends": [
        {
            "name": "far",
            "address": "https://far.example.com:8443",
            "models": {"far:1b": "org/far-1b"},
        }
    ],
    "gateway_names": ["llm.example.com", "llm.example.internal"],
    "gateway_tls": "acme",
    "gateway_acme_directory": "https://acme.internal/directory",
    "gateway_acme_email": "ops@example.com",
    "gateway_http_port": 80,
    "gateway_cors_origins": ["https://chat.example.com"],
    "gateway_connections": 64,
    "gateway_connections_free": ["10.9.0.0/16", "fd09::/64"],
    "gateway_refusals": 600,
    "gateway_metrics": "private",
    "gateway_metrics_port": 9245,
    "gateway_metrics_nginx_port": 9213,
    "gateway_metrics_node_port": 9200,
    "gateway_metrics_from": ["10.9.0.0/16"],
    "gateway_allow_from": ["10.0.0.0/8", "192.168.1.0/24", "fd00::/8"],
    "gateway_read_timeout": "1h30m",
    "gateway_roll": "at-once",
    "gateway_roll_width": 4,
    "gateway_drain_timeout": "20m",
    "gateway_max_body": 256,
    "firewall_ssh_from": ["10.0.0.0/8", "fd00::/8"],
}
# A host for containers alone.
ALTERNATIVE_CONTAINERS: dict[str, Any] = {
    "docker_enabled": True,
    "docker_version": "28.5.2",
    "docker_containerd_version": "1.7.29",
    "docker_compose_version": "2.24.0",
    "docker_repository_url": "http://mirror.internal/docker/",
    "docker_repository_fingerprint": "AB" * 20,
    "docker_log_driver": "json-file",
    "docker_log_max_size": 50,
    "docker_log_max_files": 3,
    "docker_live_restore": False,
    "docker_data_root": "/srv/docker",
    "docker_registry_mirrors": ["https://mirror.internal:5000"],
    "docker_insecure_registries": ["registry.internal:5000", "10.0.0.0/8"],
    "docker_http_proxy": "http://proxy.internal:3128",
    "docker_https_proxy": "http://proxy.internal:3128",
    "docker_no_proxy": ["mirror.internal"],
    "docker_users": ["ops"],
    "toolkit_version": "1.19.1-1",
    "toolkit_runtime": True,
    "toolkit_repository_url": "http://mirror.internal/toolkit/",
    "toolkit_repository_fingerprint": "CD" * 20,
}
# The fleet of all of these: whatever capability has a group has a host here, and every setting
# differs from its default on one.
ALTERNATIVE: Hosts = {
    "gpu1": ("gpu", ALTERNATIVE_GPU),
    "edge": ("gateway", ALTERNATIVE_GATEWAY),
    "box": ("containers", ALTERNATIVE_CONTAINERS),
    **{item.NAME: (item.GROUPS, item.SETTINGS) for item in _OWN_HOSTS},
}
# Every capability on one machine, with no more than it needs.
EVERYTHING: tuple[str, Mapping[str, Any]] = (
    " ".join(["gpu", "gateway", *(item.GROUPS for item in _OWN_HOSTS)]),
    {
        "private_address": "10.0.0.5",
        "gpu_count": 0,
        "ollama_listen": "private",
        "gateway_keys": ["webui"],
        **{key: value for item in _OWN_HOSTS for key, value in item.LEAST.items()},
    },
)
_INSTANCES: Mapping[str, Any] = {
    "docker_enabled": True,
    "ollama_image": "ollama/ollama:0.32.7@sha256:" + "ab" * 32,
    "ollama_instances": [
        {"name": "a", "port": 11434, "gpus": [0]},
        {"name": "b", "port": 11435, "gpus": [1], "runtime": "docker"},
    ],
}
# vLLM from packages; any lock with hashes is one.
_PACKAGES: Mapping[str, Any] = {
    "vllm_runtime": "venv",
    "vllm_lock": str(PRODUCT_ROOT / "requirements.lock"),
    "vllm_servers": vllm.LEAST["vllm_servers"],
}
# Whoever reads what capabilities tell is tested with these.
FLEETS: Mapping[str, Hosts] = {
    "one GPU host": {"gpu1": ("gpu", {})},
    "both on one": {"box": BOX},
    "two hosts": {"gpu1": GPU, "edge": EDGE},
    "instances": {"gpu1": ("gpu", {**GPU[1], **_INSTANCES}), "edge": EDGE},
    "packages": {"infer": ("vllm", _PACKAGES)},
    "everything on one": {"all": EVERYTHING},
    "alternative": ALTERNATIVE,
}


def alternative(*names: str) -> Hosts:
    """The hosts `names` of the alternative fleet."""
    return {name: ALTERNATIVE[name] for name in names}


def inventory_of(hosts: Hosts) -> Inventory:
    """An inventory as pyinfra makes one of a file: groups, and data of each host."""
    groups: dict[str, list[str]] = {}
    for name, (names, _) in hosts.items():
        for group in names.split():
            groups.setdefault(group, []).append(name)
    return Inventory(  # type: ignore[no-untyped-call]
        ([(name, dict(data)) for name, (_, data) in hosts.items()], {}),
        **{group: (members, {}) for group, members in groups.items()},
    )


def fleet_of(hosts: Hosts) -> Fleet:
    """The checked fleet of `hosts`.

    Raises:
        SettingsError: what is declared is refused.
    """
    return load_fleet(inventory_of(hosts), CAPABILITIES, deploys=True)


@pytest.fixture(autouse=True)
def own_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Secrets of a test's fleet are made in a directory of that test; where they are kept."""
    monkeypatch.setattr(fleet.declare.load, "project_of", lambda _: tmp_path)
    return tmp_path / ".secrets"
