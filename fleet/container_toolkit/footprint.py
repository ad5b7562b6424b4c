"""What the container toolkit puts on a host."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fleet.container_toolkit.files import PACKAGES
from fleet.container_toolkit.paths import CDI_DROPIN, TOOLKIT_OWNED
from fleet.declare.fleet import FleetHost
from fleet.docker.operations import release_keys
from fleet.kit.footprint import Trace, dropins, files, holds, packages, repository

_SOURCE = repository("nvidia-container-toolkit")


def footprint(_: FleetHost) -> Iterator[Trace]:
    """NVIDIA's repository and the runtime; the packages stay."""
    yield Trace(
        "`/etc/apt`: the toolkit's repository with its key, and holds; a drop-in for "
        "`nvidia-cdi-refresh.service`",
        "containers can have the GPUs",
        (
            *holds(_SOURCE[0].name, *PACKAGES),
            *_SOURCE,
            *dropins(CDI_DROPIN),
            *files(TOOLKIT_OWNED),
        ),
        undo=partial(release_keys, TOOLKIT_OWNED),
    )
    yield Trace(
        "packages `nvidia-container-toolkit` and its libraries",
        "where Docker runs on hosts with GPUs",
        packages(*PACKAGES),
        "stays",
        "containers of your own may have GPUs by it",
    )
