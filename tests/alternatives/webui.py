"""A host for Open WebUI alone, which uses the alternative gateway."""

from __future__ import annotations

from typing import Any

NAME = "page"
GROUPS = "webui"
# What it needs, beside its groups.
LEAST: dict[str, Any] = {
    "webui_image": "ghcr.io/open-webui/open-webui:v0.9.6@sha256:" + "ab" * 32,
    "webui_admin_email": "admin@fleet.internal",
}
# Every setting that can differ from its default does.
SETTINGS: dict[str, Any] = {
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
