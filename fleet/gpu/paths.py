"""Where it is kept which GPUs a host has."""

from __future__ import annotations

from fleet.kit.paths import ETC

GPU_NOTE = f"{ETC}/gpus.json"
