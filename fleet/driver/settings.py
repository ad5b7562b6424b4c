"""Settings of the GPU driver."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fleet.declare.settings import Settings
from fleet.declare.types import Fingerprint, HttpUrl, PositiveDuration, text_form

RebootPolicy = Literal["one-at-a-time", "together", "never"]
DriverVersion = Annotated[
    str, text_form(r"\d{3}\.\d+(\.\d+)?", "a driver's version, such as 580.95.05")
]


def branch_in(version: str) -> int:
    """The driver branch of one of NVIDIA's versions: 580 of `580.178.04`."""
    return int(version.split(".", maxsplit=1)[0])


class Driver(Settings):
    """The NVIDIA driver of a GPU host; a host without an NVIDIA GPU needs none of it."""

    prefix = "driver_"

    source: Literal["nvidia", "distribution", "none"] = Field(
        "nvidia",
        description=(
            "Where the driver comes from: NVIDIA's repository, the distribution's own archive, or "
            "`none` for a host whose driver is somebody else's: it is only "
            "verified then, and its device nodes are made at each boot."
        ),
    )
    branch: Annotated[int, Field(ge=550, le=999)] | None = Field(
        None,
        description=(
            "Driver branch that the host stays in. Unset is that of `driver_version`, or 580: it "
            "is supported until June 2028, and the last one for Maxwell, Pascal and Volta. NVIDIA "
            "does not publish it for Debian 13 and Ubuntu 26.04, where unset is 595. Debian's own "
            "archive has one branch only."
        ),
    )
    version: DriverVersion | None = Field(
        None,
        description=(
            "Exact driver version, from NVIDIA's repository, as in `595.91.07` or `580.95`: it "
            "begins with `driver_branch`, where that is set. Unset installs the branch's newest "
            "and stays with it; set it to move."
        ),
    )
    modules: Literal["auto", "open", "proprietary"] = Field(
        "auto",
        description="Kernel modules: `auto` is open ones from Turing on, proprietary ones before.",
    )
    hold: bool = Field(
        True,
        description=(
            "Hold the driver's packages, so that `apt upgrade` leaves the loaded module and its "
            "libraries at one version."
        ),
    )
    reboot: RebootPolicy = Field(
        "one-at-a-time",
        description=(
            "When the installed module is not the loaded one: reboot the hosts one after the "
            "other, all at once, or leave it to you; the compliance check fails until it is done."
        ),
    )
    reboot_timeout: PositiveDuration = Field(
        "15m",
        description="How long a host may take to come back from a reboot.",
    )
    mok_enrolled: bool = Field(
        False,
        description=(
            "Secure Boot: the key that signs the modules built on this host is enrolled in its "
            "firmware. Ubuntu's own archive has signed modules and needs none."
        ),
    )
    repository_url: HttpUrl = Field(
        "https://developer.download.nvidia.com/compute/cuda/repos",
        description="NVIDIA's repositories: `<url>/<distribution>/<architecture>/`, or a mirror.",
    )
    repository_fingerprint: Fingerprint | None = Field(
        None,
        description=(
            "Fingerprint of the key that signs the repository, for a mirror with its own key."
        ),
    )

    @model_validator(mode="after")
    def _relations(self) -> Driver:
        if self.version and self.source != "nvidia":
            raise ValueError(
                f"driver_version: only NVIDIA's repository has versions to choose from, and "
                f"driver_source is {self.source!r}"
            )
        if self.version and self.branch not in (None, branch_in(self.version)):
            raise ValueError(
                f"driver_version: {self.version} is not of branch {self.branch}; set driver_branch "
                f"= {branch_in(self.version)}"
            )
        return self
