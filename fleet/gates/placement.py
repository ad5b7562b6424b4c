"""Where loaded models really are: on the GPUs that they were given, or silently on the CPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

_SHOWN = 4  # lines of the journal, beside those of the devices
_PARTIAL = (
    "It does not fit: lower its context or the requests at once, free what `nvidia-smi` shows of "
    "others, or allow it by name in models_cpu_offload"
)


@dataclass(frozen=True)
class Loaded:
    """A model in memory: bytes in all, and of them on GPUs."""

    size: int
    size_vram: int


@dataclass(frozen=True)
class Placement:
    """What an Ollama server has loaded, by name, and what it said of GPUs since it started.

    `log` are the lines of its journal about them: every device that it found, then the latest.
    `answers` is False when its API said nothing, so that nothing is known of `running`.
    """

    running: dict[str, Loaded]
    log: tuple[str, ...] = ()
    answers: bool = True

    @property
    def found(self) -> list[str]:
        """The compute devices that it found when it started; empty once the journal forgot them."""
        return [line for line in self.log if 'msg="inference compute"' in line]

    @property
    def devices(self) -> list[str]:
        """The GPUs among what it found."""
        return [line for line in self.found if "library=CUDA" in line]


@dataclass(frozen=True)
class Surroundings:
    """What a server needs of its host to find its GPUs, as it is now.

    `refusal` is what nvidia-smi says when it fails, `uuids` are the GPUs that it tells of,
    `missing` the device nodes that are not there. `visible` is CUDA_VISIBLE_DEVICES of the running
    process, None when it has none; `allowed` its unit's DeviceAllow, None where that does not
    matter. `fabric` is the state of the fabric manager, None on hosts without NVSwitches.
    """

    driver: str | None = None
    refusal: str | None = None
    uuids: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    visible: str | None = None
    allowed: str | None = None
    drop_ins: str | None = None
    fabric: str | None = None


@dataclass(frozen=True)
class Silence:
    """A server whose API says nothing."""

    def __str__(self) -> str:
        """The problem in an operator's words."""
        return "its API does not answer, so nobody knows where its models are"


@dataclass(frozen=True)
class TooFewGpus:
    """A server that `found` fewer GPUs, when it started, than it was `given`."""

    found: int
    given: int

    def __str__(self) -> str:
        """The problem in an operator's words."""
        return f"Ollama found {self.found} of its {self.given} GPUs when it started"


@dataclass(frozen=True)
class OnCpu:
    """A model that is wholly on the CPU."""

    model: str

    def __str__(self) -> str:
        """The problem in an operator's words."""
        return f"{self.model} is on the CPU, and wholly so"


@dataclass(frozen=True)
class PartlyOnCpu:
    """A model of which `share` percent only is on the GPU."""

    model: str
    share: int

    def __str__(self) -> str:
        """The problem in an operator's words."""
        return f"{self.model} is only to {self.share} % on the GPU, the rest is on the CPU"


Problem = Silence | TooFewGpus | OnCpu | PartlyOnCpu


def problems(
    placement: Placement, gpus: int, offload: Collection[str], on_cpu: Collection[str]
) -> Iterator[Problem]:
    """What is not on the GPUs as declared, for an instance that was given `gpus` of them.

    Names in `offload` may be partly on the CPU; those in `on_cpu` too, and wholly.
    """
    if not placement.answers:
        yield Silence()
    if placement.found and len(placement.devices) < gpus:
        yield TooFewGpus(len(placement.devices), gpus)
    for name, loaded in sorted(placement.running.items()):
        if loaded.size_vram >= loaded.size or name in on_cpu:
            continue
        if loaded.size_vram == 0:
            yield OnCpu(name)
        elif name not in offload:
            yield PartlyOnCpu(name, 100 * loaded.size_vram // loaded.size)


def explain(
    placement: Placement, found: list[Problem], unit: str, around: Surroundings, gpus: int
) -> str:
    """The problems with their evidence: driver, Ollama's own words, the cause, and what to do."""
    others = [line for line in placement.log if line not in placement.found]
    said = "".join(f"\n  {line}" for line in [*placement.found, *others[-_SHOWN:]])
    return (
        f"{'; '.join(map(str, found))}. Driver: {around.driver or 'none is loaded'}. {unit} says:"
        f"{said or ' nothing of GPUs in its journal'}\n{_remedy(found, unit, around, gpus)}"
    )


def _remedy(found: list[Problem], unit: str, around: Surroundings, gpus: int) -> str:
    if any(isinstance(problem, Silence) for problem in found):
        return f"See `systemctl status {unit}`, and deploy again once it answers"
    if all(isinstance(problem, PartlyOnCpu) for problem in found):
        return _PARTIAL
    return cause(around, unit, gpus)


def cause(around: Surroundings, unit: str, gpus: int) -> str:
    """Why a server does not find the GPUs that it was given, and what to do."""
    return obstacle(around, unit, gpus) or (
        f"The GPUs are there now, and Ollama looks for them only when it starts: restart {unit}. "
        "Should it find none again, OLLAMA_DEBUG=2 has it say why"
    )


def obstacle(around: Surroundings, unit: str, gpus: int) -> str | None:
    """What keeps a server from its GPUs now; None where it may only have been quicker than they.

    Ollama itself does not say: the child that looks for GPUs is asked for its devices only, and
    what CUDA said to it is kept at OLLAMA_DEBUG=2 alone (discover/llama_server.go).
    """
    if around.refusal:
        return (
            f"nvidia-smi says: {around.refusal.rstrip('.')}. Reboot where versions differ; else "
            "see the journal of llm-fleet-gpu-devices.service, and mend the driver"
        )
    if around.fabric not in (None, "active"):
        return (
            f"The NVSwitches wait for their fabric manager, which is {around.fabric} (CUDA's error "
            "802, system not yet initialized): see `systemctl status nvidia-fabricmanager`; its "
            f"version must be the driver's. Then restart {unit}"
        )
    if around.missing:
        return (
            f"{', '.join(around.missing)} is not there: restart llm-fleet-gpu-devices.service, "
            f"then {unit}"
        )
    if len(around.uuids) < gpus:
        return (
            f"nvidia-smi tells of {len(around.uuids)} of {gpus} GPUs on the bus: see `dmesg` for "
            "one that failed. Where the others are given to something else (vfio-pci), name those "
            "that are Ollama's in ollama_instances, with gpus"
        )
    return _closed(around)


def _closed(around: Surroundings) -> str | None:
    """What of a server's own unit keeps it from its GPUs."""
    if around.visible is not None and not _names_all(around.visible, around.uuids):
        return (
            f"CUDA_VISIBLE_DEVICES = {around.visible} names what this host does not have; it has "
            f"{', '.join(around.uuids)}. {_added(around.drop_ins)}"
        )
    if around.allowed is not None and "char-nvidia" not in around.allowed:
        return (
            f"The unit may not open /dev/nvidia* (DeviceAllow={around.allowed.strip()}). "
            f"{_added(around.drop_ins)}"
        )
    return None


def _names_all(visible: str, uuids: Collection[str]) -> bool:
    """Whether each entry is an index or the UUID of a GPU that is there."""
    entries = [entry.strip() for entry in visible.split(",")]
    return all(
        int(entry) in range(len(uuids)) if entry.isdecimal() else entry in uuids
        for entry in entries
    )


def _added(drop_ins: str | None) -> str:
    return f"Take {drop_ins} away" if drop_ins else "Run the deploy, which puts the unit right"
