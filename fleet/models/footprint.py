"""What the loader of models puts on a host; the models themselves are Ollama's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from fleet.declare.fleet import FleetHost
from fleet.kit.footprint import Part, Trace, files, units
from fleet.kit.host_programs import program_files
from fleet.models.paths import (
    LOADER_CONFIG,
    LOADER_MEMORY,
    LOADER_STATE,
    LOADER_TIMER,
    MODEL_CHOICE,
)
from fleet.ollama.paths import LOADER_UNIT


def footprint(_: FleetHost) -> Iterator[Trace]:
    """Its units, its program and what it remembers."""
    yield Trace(
        f"`{LOADER_UNIT}`, `{LOADER_TIMER}`",
        "provide the declared models, and load them",
        (
            *units(LOADER_UNIT, LOADER_TIMER),
            *files(*(file.path for file in program_files("models", "model_loader"))),
            *files(LOADER_CONFIG, MODEL_CHOICE),
            *(
                Part("tree", str(PurePosixPath(path).parent))
                for path in (LOADER_MEMORY, LOADER_STATE)
            ),
        ),
    )
