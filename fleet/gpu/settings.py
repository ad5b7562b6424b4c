"""How many GPUs a host has to have, or which."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from fleet.declare.settings import Settings
from fleet.declare.types import Words, text_form

# Of a machine with more nobody has told yet; a number beyond is a slip of the finger.
MOST = 64
GpuName = Annotated[
    str,
    text_form(
        r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]",
        "a GPU's UUID as `nvidia-smi -L` shows it (GPU-, then lower-case hexadecimal digits), nor "
        "its PCI address, such as 0000:17:00.0",
    ),
    Words("GPU (its UUID or PCI address)", "GPUs (UUIDs or PCI addresses)"),
]


class Gpus(Settings):
    """The NVIDIA GPUs that a host must have. Fewer of them fail the deploy and the checks.

    Without either key a host must have as many as a deploy has once seen there; where none was ever
    seen, deploy and checks warn until `gpu_count` says so.
    """

    prefix = "gpu_"
    unprefixed: ClassVar[frozenset[str]] = frozenset({"gpus"})

    count: Annotated[int, Field(ge=0, le=MOST)] | None = Field(
        None,
        description=(
            "How many GPUs the host has. `0` declares a host that serves from the CPU. Another "
            "number than before forgets what was there."
        ),
    )
    gpus: tuple[GpuName, ...] | None = Field(
        None,
        strict=False,
        description=(
            "Which GPUs the host has, in place of their number: one that was exchanged is noticed "
            "too."
        ),
    )

    @field_validator("gpus")
    @classmethod
    def _each_once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value:
            raise ValueError("empty; a host without GPUs is declared with gpu_count = 0")
        if value is not None and len(set(value)) != len(value):
            raise ValueError("names a GPU twice; name each once")
        return value

    @model_validator(mode="after")
    def _relations(self) -> Gpus:
        if self.gpus is not None and self.count not in (None, len(self.gpus)):
            raise ValueError(
                f"gpu_count: {self.count}, but gpus names {len(self.gpus)}; leave gpu_count out"
            )
        return self

    @property
    def declared(self) -> int | None:
        """How many are declared, by number or by name; None when nothing is."""
        return self.count if self.gpus is None else len(self.gpus)

    @property
    def on_cpu(self) -> bool:
        """Whether the host is declared to have none."""
        return self.declared == 0

    def __str__(self) -> str:
        """What is declared, as an inventory has it."""
        return f"gpu_count = {self.count}" if self.gpus is None else f"gpus = {list(self.gpus)}"
