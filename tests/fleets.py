"""Fleets to test with, declared in a line or two and loaded the way a deploy loads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api.inventory import Inventory

import fleet.declare.load
from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import Fleet
from fleet.declare.load import load_fleet

# Name of a host to its groups (with spaces between) and its data.
Hosts = Mapping[str, tuple[str, Mapping[str, Any]]]

# The smallest fleet on two machines.
GPU: tuple[str, Mapping[str, Any]] = (
    "gpu",
    {"private_address": "10.0.0.11", "ollama_listen": "private"},
)
EDGE: tuple[str, Mapping[str, Any]] = (
    "gateway",
    {"private_address": "10.0.0.2", "gateway_keys": ["team-a"]},
)
# ... and on one.
BOX: tuple[str, Mapping[str, Any]] = (
    "gpu gateway",
    {"private_address": "10.0.0.5", "gateway_keys": ["team-a"]},
)
# What Dify and Open WebUI need, beside their groups.
DIFY: Mapping[str, Any] = {
    "dify_sha256": "ab" * 32,
    "dify_owner_email": "owner@fleet.internal",
    "dify_plugin": "langgenius/ollama:1.0.0@" + "cd" * 32,
}
WEBUI: Mapping[str, Any] = {
    "webui_image": "ghcr.io/open-webui/open-webui:v0.9.6@sha256:" + "ab" * 32,
    "webui_admin_email": "admin@fleet.internal",
}

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
            "parameters": {"num_ctx": 48000, "temperature": 0.2, "stop": ["User:"]},
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
    "firewall_ssh_from": ["10.0.0.0/8", "fd00::/8"],
    "firewall_open_tcp": [9100, 9400],
    "firewall_open_to_containers": [21434],
    "firewall_container_interfaces": ["docker0", "dify0"],
    "firewall_log_drops": False,
    "firewall_confirm_within": "2m",
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
        {"name": "team-c", "rate": "90/m", "burst": 5, "concurrent": 2, "overrides": True},
        {"name": "team-d", "rate": "2/s", "allow_from": ["10.0.0.0/8", "fd00::/8"]},
    ],
    "gateway_names": ["llm.example.com", "llm.example.internal"],
    "gateway_tls": "acme",
    "gateway_acme_directory": "https://acme.internal/directory",
    "gateway_acme_email": "ops@example.com",
    "gateway_http_port": 80,
    "gateway_cors_origins": ["https://chat.example.com"],
    "gateway_metrics": "private",
    "gateway_metrics_port": 9245,
    "gateway_metrics_nginx_port": 9213,
    "gateway_metrics_node_port": 9200,
    "gateway_metrics_from": ["10.9.0.0/16"],
    "gateway_allow_from": ["10.0.0.0/8", "192.168.1.0/24", "fd00::/8"],
    "gateway_read_timeout": "1h30m",
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
# A host for Dify alone, which uses the alternative gateway.
ALTERNATIVE_DIFY: dict[str, Any] = {
    "private_address": "fd00::3",
    "dify_version": "1.17.1",
    "dify_sha256": "ab" * 32,
    "dify_release_url": "http://mirror.internal/dify/",
    "dify_images": {"nginx:latest": "sha256:" + "cd" * 32},
    "dify_listen": "private",
    "dify_port": 9480,
    "dify_allow_from": ["10.0.0.0/8", "fd00::/8"],
    "dify_public_url": "https://dify.example.com/",
    "dify_subnet": "172.29.0.0/20",
    "dify_owner_email": "owner@fleet.internal",
    "dify_owner_name": "The Owner",
    "dify_language": "de-DE",
    "dify_plugin_package": "http://mirror.internal/ollama.difypkg",
    "dify_plugin_sha256": "ef" * 32,
    "dify_plugin_signature": False,
    "dify_pip_index": "http://mirror.internal/simple",
    "dify_ollama": "gateway",
    "dify_gateway_key": "team-c",
    "dify_models": [
        {"name": "analyst", "context_size": 2048, "max_tokens": 512, "tools": False},
        "gpt-oss:120b",
    ],
    "dify_app_name": "Ask",
    "dify_http_proxy": "http://proxy.internal:3128",
    "dify_no_proxy": ["mirror.internal"],
    "dify_start_timeout": "1h",
    "dify_backup_dir": "/srv/backups/dify",
    "dify_backup_every": "12h",
    "dify_backup_keep": 30,
    "dify_env": {"LOG_LEVEL": "DEBUG"},
}
# A host for Open WebUI alone, which uses the alternative gateway.
ALTERNATIVE_WEBUI: dict[str, Any] = {
    "private_address": "fd00::4",
    "webui_image": "mirror.internal:5000/open-webui/open-webui:v0.9.6@sha256:" + "ab" * 32,
    "webui_listen": "private",
    "webui_port": 9380,
    "webui_allow_from": ["10.0.0.0/8", "fd00::/8"],
    "webui_gateway_key": "team-a",
    "webui_admin_email": "admin@fleet.internal",
    "webui_env": {"WEBUI_NAME": "Ask us"},
    "webui_backup_dir": "/srv/backups/webui",
    "webui_backup_every": "12h",
    "webui_backup_keep": 30,
}
# The fleet of all of these: whatever capability has a group has a host here, and every setting
# differs from its default on one.
ALTERNATIVE: Hosts = {
    "gpu1": ("gpu", ALTERNATIVE_GPU),
    "edge": ("gateway", ALTERNATIVE_GATEWAY),
    "box": ("containers", ALTERNATIVE_CONTAINERS),
    "chat": ("dify", ALTERNATIVE_DIFY),
    "page": ("webui", ALTERNATIVE_WEBUI),
}
# Every capability on one machine, with no more than it needs.
EVERYTHING: tuple[str, Mapping[str, Any]] = (
    "gpu gateway dify webui",
    {
        "private_address": "10.0.0.5",
        "ollama_listen": "private",
        "gateway_keys": ["webui"],
        **DIFY,
        **WEBUI,
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
# Whoever reads what capabilities tell is tested with these.
FLEETS: Mapping[str, Hosts] = {
    "one GPU host": {"gpu1": ("gpu", {})},
    "both on one": {"box": BOX},
    "two hosts": {"gpu1": GPU, "edge": EDGE},
    "instances": {"gpu1": ("gpu", {**GPU[1], **_INSTANCES}), "edge": EDGE},
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
    return load_fleet(inventory_of(hosts), CAPABILITIES)


@pytest.fixture(autouse=True)
def own_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Secrets of a test's fleet are made in a directory of that test; where they are kept."""
    monkeypatch.setattr(fleet.declare.load, "PROJECT_ROOT", tmp_path)
    return tmp_path / ".secrets"
