"""Settings of the NVIDIA Container Toolkit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleet import pins
from fleet.declare.settings import Settings
from fleet.declare.types import Fingerprint, HttpUrl, text_form

ToolkitVersion = Annotated[
    str,
    text_form(r"\d+\.\d+\.\d+-\d+", "a package's version, with its revision, such as 1.19.1-1"),
]


class ContainerToolkit(Settings):
    """NVIDIA Container Toolkit, on hosts with Docker and an NVIDIA GPU."""

    prefix = "toolkit_"

    enabled: bool = Field(
        True,
        description=(
            "Give containers the GPUs, by CDI (`--device nvidia.com/gpu=all`). Hosts without "
            "Docker or without an NVIDIA GPU have nothing to give, and are left alone."
        ),
    )
    version: ToolkitVersion = Field(
        pins.TOOLKIT_VERSION,
        description="Version of all four packages, held; with the packages' own number, `-1`.",
    )
    runtime: bool = Field(
        False,
        description=(
            "Also register the runtime `nvidia`, for `--gpus` and `--runtime=nvidia`. Containers "
            "started that way lose their GPUs at every `systemctl daemon-reload`; CDI's do not."
        ),
    )
    repository_url: HttpUrl = Field(
        "https://nvidia.github.io/libnvidia-container",
        description="NVIDIA's repository, or a mirror: `<url>/stable/deb/<architecture>/`.",
    )
    repository_fingerprint: Fingerprint = Field(
        pins.TOOLKIT_KEY,
        description=(
            "Fingerprint of the key that signs the repository; it is fetched from `<url>/gpgkey` "
            "and trusted only when it is this one."
        ),
    )
