"""The note of which GPUs a host has."""

from __future__ import annotations

import json
from collections.abc import Iterable

from fleet.gpu.facts import SeenGpu
from fleet.gpu.paths import GPU_NOTE
from fleet.kit.files import ManagedFile


def note(gpus: Iterable[SeenGpu]) -> ManagedFile:
    """What the next deploy, and the checks, hold the host to."""
    entries = [{"address": gpu.address, "uuid": gpu.uuid} for gpu in gpus]
    return ManagedFile(GPU_NOTE, json.dumps({"gpus": entries}, indent=1) + "\n")
