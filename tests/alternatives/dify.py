"""A host for Dify alone, which uses the alternative gateway."""

from __future__ import annotations

from typing import Any

NAME = "chat"
GROUPS = "dify"
# What it needs, beside its groups.
LEAST: dict[str, Any] = {
    "dify_sha256": "ab" * 32,
    "dify_owner_email": "owner@fleet.internal",
    "dify_plugin": "langgenius/ollama:1.0.0@" + "cd" * 32,
}
# Every setting that can differ from its default does.
SETTINGS: dict[str, Any] = {
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
