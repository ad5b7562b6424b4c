"""What weights and their loader put on a host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from fleet.declare.fleet import FleetHost
from fleet.kit.footprint import Part, Trace, files, folders, units
from fleet.kit.host_programs import program_files
from fleet.weights.paths import (
    KEPT,
    OURS,
    WEIGHTS_CONFIG,
    WEIGHTS_HOME,
    WEIGHTS_STATE,
    WEIGHTS_TIMER,
    WEIGHTS_TOKEN,
    WEIGHTS_UNIT,
    WEIGHTS_USER,
)
from fleet.weights.settings import Weights


def footprint(me: FleetHost) -> Iterator[Trace]:
    """The loader, and what it fetched."""
    yield Trace(
        f"`{WEIGHTS_UNIT}`, `{WEIGHTS_TIMER}`",
        "fetch the declared weights, and hash them",
        (
            *units(WEIGHTS_UNIT, WEIGHTS_TIMER),
            *files(*(file.path for file in program_files("weights", "weights_loader"))),
            *files(WEIGHTS_CONFIG, WEIGHTS_TOKEN),
            Part("tree", str(PurePosixPath(WEIGHTS_STATE).parent)),
        ),
    )
    root = me[Weights].dir
    lock, memory = KEPT
    yield Trace(
        "`/var/lib/llm-fleet-weights` (or `weights_dir`)",
        f"weights, `<name>/<revision>`, of the system user `{WEIGHTS_USER}`",
        (
            Part("tree", f"{root}/*", OURS),
            Part("file", f"{root}/{memory}"),
            Part("file", f"{root}/{lock}"),
            Part("user", WEIGHTS_USER, WEIGHTS_HOME),
            *folders(root),
        ),
        "models",
        "tens of gigabytes that a next deploy need not fetch again",
    )
