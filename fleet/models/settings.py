"""Settings of how models are provided."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fleet.declare.settings import Settings
from fleet.declare.types import PositiveDuration, text_form
from fleet.kit.durations import seconds
from fleet.ollama.models import ModelName

MirrorName = Annotated[
    str,
    text_form(
        r"[A-Za-z0-9][A-Za-z0-9.-]*(:\d{1,5})?",
        "a host and its port, without http:// or a path, such as mirror.internal:5000",
    ),
]


class Models(Settings):
    """The models of a GPU host."""

    prefix = "models_"

    registry: MirrorName | None = Field(
        None,
        description=(
            "Mirror to pull from, as `host` or `host:port`, without a scheme or a path; the models "
            "keep their short names. Unset is Ollama's own registry."
        ),
    )
    registry_insecure: bool = Field(
        False,
        description="Talk plain HTTP to the mirror.",
        json_schema_extra={"exposes": "`True` lets the network read and alter what is pulled."},
    )
    cpu_offload: tuple[ModelName, ...] = Field(
        (),
        strict=False,
        description=(
            "Models that may run partly on the CPU of a GPU host, by their names in "
            "`ollama_models`; they are many times slower. Any other that does not fit is refused."
        ),
    )
    wait: bool = Field(
        True, description="Wait until the models are there. `False` leaves the host to it."
    )
    wait_timeout: PositiveDuration = Field(
        "6h",
        description="How long a deploy waits. The host goes on by itself after that.",
    )

    prune: bool = Field(
        False,
        description=(
            "Remove models that are not declared, but never one that is loaded. `False` only "
            "reports them."
        ),
    )
    no_progress: PositiveDuration = Field(
        "3m",
        description=(
            "A pull without a new byte for so long is given up and begun anew; it goes on from "
            "where it was. Ollama by itself can wait for ever."
        ),
    )
    slow_rate: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        0.0,
        description=(
            "A pull slower than this is interrupted and resumed at once, as fresh connections "
            "often are faster. 0 is never."
        ),
        json_schema_extra={"unit": "MB/s"},
    )
    slow_window: PositiveDuration = Field(
        "2m",
        description="Over how long `models_slow_rate` is averaged; also the least time between two "
        "such interruptions.",
    )
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        5,
        description=(
            "Attempts for a model, one after the other and without a new byte, before it counts "
            "as failed. The host begins anew by itself `models_retry_delay_max` later."
        ),
    )
    retry_delay: PositiveDuration = Field(
        "5s",
        description="Pause after a first failed attempt; doubled after each further one.",
    )
    retry_delay_max: PositiveDuration = Field(
        "5m",
        description="Longest pause between two attempts, and between two runs of the loader.",
    )
    disk_reserve: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        5.0,
        description="What a pull must leave free in `ollama_models_dir`; checked before it begins.",
        json_schema_extra={"unit": "GB"},
    )

    @model_validator(mode="after")
    def _relations(self) -> Models:
        if seconds(self.retry_delay) > seconds(self.retry_delay_max):
            raise ValueError(
                f"models_retry_delay: {self.retry_delay} is longer than models_retry_delay_max = "
                f"{self.retry_delay_max}; exchange them"
            )
        if self.registry_insecure and not self.registry:
            raise ValueError(
                "models_registry_insecure: only a mirror can be plain HTTP; set models_registry"
            )
        return self
