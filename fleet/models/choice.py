"""`auto`: which gpt-oss a host serves, by its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fleet.ollama.models import ModelDeclaration, full_name, is_auto

GIB = 1024**3

LARGE, SMALL = "gpt-oss:120b", "gpt-oss:20b"
# Weights of 65.4 GB and 13.8 GB, the whole context of 131072 tokens (4.5 and 3 GiB), and 2 GiB for
# buffers. On the CPU the rest of the host needs room too.
_LARGE_ON_GPU, _SMALL_ON_GPU = 68, 18
_LARGE_ON_CPU, _SMALL_ON_CPU = 80, 24


@dataclass(frozen=True)
class Memory:
    """A host's memory in bytes: each NVIDIA GPU's, and the host's own.

    `has_silent_gpu`: an NVIDIA GPU is on the bus, but nvidia-smi tells of none.
    """

    gpus: tuple[int, ...]
    ram: int
    has_silent_gpu: bool = False


class Choice(NamedTuple):
    """A model, and why it."""

    model: str
    why: str


def choose(memory: Memory) -> Choice | None:
    """The larger model that fits with its whole context; None while a GPU says nothing."""
    if memory.has_silent_gpu:
        return None
    available = (sum(memory.gpus) or memory.ram) / GIB
    large, small = (_LARGE_ON_GPU, _SMALL_ON_GPU) if memory.gpus else (_LARGE_ON_CPU, _SMALL_ON_CPU)
    count = len(memory.gpus)
    gpus = f"{count} GPU{'s' if count > 1 else ''}" if count else "no GPU"
    kind = f"{gpus} with {available:.0f} GiB" if count else f"{gpus}, {available:.0f} GiB of memory"
    if available >= large:
        return Choice(LARGE, f"{kind}: at least the {large} GiB that {LARGE} needs")
    why = f"{kind}: less than the {large} GiB that {LARGE} needs"
    if available < small:
        why += f", and less than the {small} GiB that {SMALL} needs with its whole context"
    return Choice(SMALL, why)


def resolve(name: str, choice: Choice | None) -> str | None:
    """The full name of a model; `auto` is the host's `choice`, and None while that is open."""
    if not is_auto(name):
        return full_name(name)
    return choice.model if choice else None


def resolve_model(model: ModelDeclaration, choice: Choice | None) -> ModelDeclaration | None:
    """The declaration with `auto` replaced by the host's `choice`; None while that is open."""
    field = "name" if is_auto(model.name) else "base"
    name = getattr(model, field)
    if name is None or not is_auto(name):
        return model
    chosen = resolve(name, choice)
    return model.model_copy(update={field: chosen}) if chosen else None
