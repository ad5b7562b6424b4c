"""Where loaded models really are: on the GPUs that they were given, or silently on the CPU."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

# What Ollama's journal, or its child's, says, and what helps. Sources: CUDA's error texts
# (cudaGetErrorString), Ollama's discover/cuda_compat.go, NVIDIA's fabric manager guide.
_REMEDIES = (
    (
        "system not yet initialized",
        "the NVSwitches wait for their fabric manager (error 802): see "
        "`systemctl status nvidia-fabricmanager`, whose version must be the driver's, then restart "
        "{unit}",
    ),
    (
        "NVIDIA driver too old|driver version is insufficient",
        "no driver is loaded, or one that is too old for this Ollama: see `nvidia-smi`, and deploy "
        "with driver_source = 'nvidia'",
    ),
    (
        "unsupported display driver",
        "the loaded driver is not the installed one: reboot this host",
    ),
    (
        "unknown error",
        "the module nvidia-uvm is in a bad state: `systemctl stop {unit}; rmmod nvidia_uvm; "
        "modprobe nvidia_uvm`, and start it again",
    ),
    (
        "no CUDA-capable device",
        "its sandbox does not let it open /dev/nvidia*, or CUDA_VISIBLE_DEVICES names no GPU of "
        "this host: compare `systemctl show -p DeviceAllow -p Environment {unit}` with "
        "`nvidia-smi -L` and `ls -l /dev/nvidia*`, then restart {unit}",
    ),
    ("out of memory", "something else holds memory of the GPU: see `nvidia-smi`"),
)
_SHOWN = 4


@dataclass(frozen=True)
class Loaded:
    """A model in memory: bytes in all, and of them on GPUs."""

    size: int
    size_vram: int


@dataclass(frozen=True)
class Placement:
    """What an Ollama server has loaded, by name, and what it said of GPUs since it started.

    `log` are the lines of its journal about them, oldest first.
    """

    running: dict[str, Loaded]
    log: tuple[str, ...] = ()

    @property
    def found(self) -> list[str]:
        """The compute devices that it found when it started; empty once the journal forgot them."""
        return [line for line in self.log if 'msg="inference compute"' in line]


def problems(
    placement: Placement, gpus: int, offload: Collection[str], on_cpu: Collection[str]
) -> Iterator[str]:
    """What is not on the GPUs as declared, for an instance that was given `gpus` of them.

    Names in `offload` may be partly on the CPU; those in `on_cpu` too, and wholly.
    """
    devices = [line for line in placement.found if "library=CUDA" in line]
    if placement.found and len(devices) < gpus:
        yield f"Ollama found {len(devices)} of its {gpus} GPUs when it started"
    for name, loaded in sorted(placement.running.items()):
        if loaded.size_vram >= loaded.size or name in on_cpu:
            continue
        if loaded.size_vram == 0:
            yield f"{name} is on the CPU, and wholly so"
        elif name not in offload:
            share = 100 * loaded.size_vram // loaded.size
            yield f"{name} is only to {share} % on the GPU, the rest is on the CPU"


def explain(placement: Placement, found: list[str], unit: str, driver: str) -> str:
    """The problems with their evidence: driver, Ollama's own words, and what to do."""
    log = "\n".join(placement.log)
    remedy = next(
        (text for pattern, text in _REMEDIES if re.search(pattern, log)),
        None,
    )
    partial = all("only to" in line for line in found)
    if remedy is None or partial:
        remedy = (
            "it does not fit: lower its context or requests at once, or allow it by name in "
            "models_cpu_offload"
            if partial
            else "restart {unit}, and see its journal"
        )
    said = "".join(f"\n  {line}" for line in placement.log[-_SHOWN:])
    return (
        f"{'; '.join(found)}. Driver: {driver or 'none is loaded'}. {unit} says:"
        f"{said or ' nothing of GPUs in its journal'}\n{remedy.format(unit=unit)}"
    )
