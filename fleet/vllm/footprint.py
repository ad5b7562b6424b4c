"""What vLLM puts on a host; weights are their own."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.kit.footprint import Part, Trace, files, folders, units
from fleet.kit.host_programs import program_files
from fleet.kit.paths import ETC
from fleet.vllm.paths import (
    RESTART_PROGRAM,
    VENV_NOTE,
    VENV_PROGRAM,
    VLLM_CACHE,
    VLLM_CURRENT,
    VLLM_ROOT,
    VLLM_USER,
    server_unit,
    watch_timer,
    watch_unit,
)


def footprint(_: FleetHost) -> Iterator[Trace]:
    """Units, virtual environments, and what the servers have compiled."""
    yield Trace(
        f"`{server_unit('<server>')}`, `{VLLM_ROOT}`, `{VLLM_CACHE}`",
        "on hosts in the group `vllm`: a server each and what watches it; virtual environments "
        "side by side; what was compiled for the GPUs",
        (
            *units(watch_timer("*"), watch_unit("*"), server_unit("*")),
            *files(*(file.path for file in program_files("vllm", "vllm_watch"))),
            *files(VENV_PROGRAM, RESTART_PROGRAM, f"{ETC}/vllm-requirements.txt"),
            *files(VLLM_CURRENT, sign=f"{VLLM_ROOT}/*/{VENV_NOTE}"),
            Part("tree", f"{VLLM_ROOT}/*", VENV_NOTE),
            *folders(VLLM_ROOT),
            Part("tree", VLLM_CACHE, VENV_PROGRAM),
            Part("user", VLLM_USER, VLLM_CACHE),
        ),
    )
