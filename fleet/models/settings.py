"""Settings of how models are provided."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fleet.declare.loading import Loading
from fleet.declare.types import text_form
from fleet.ollama.models import ModelName

MirrorName = Annotated[
    str,
    text_form(
        r"[A-Za-z0-9][A-Za-z0-9.-]*(:\d{1,5})?",
        "a host and its port, without http:// or a path, such as mirror.internal:5000",
    ),
]


class Models(Loading):
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

    @model_validator(mode="after")
    def _relations(self) -> Models:
        if self.registry_insecure and not self.registry:
            raise ValueError(
                "models_registry_insecure: only a mirror can be plain HTTP; set models_registry"
            )
        return self
