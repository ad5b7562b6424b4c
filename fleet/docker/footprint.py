"""What Docker's set-up puts on a host."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fleet.declare.fleet import FleetHost
from fleet.docker.operations import release_keys
from fleet.docker.packages import CE_PACKAGES
from fleet.docker.paths import DOCKER_CONFIG, DOCKER_OWNED
from fleet.kit.footprint import Trace, files, holds, packages, repository

_SOURCE = repository("docker")


def footprint(_: FleetHost) -> Iterator[Trace]:
    """Our keys of its configuration and its repository; Docker itself goes on."""
    yield Trace(
        f"`{DOCKER_CONFIG}`, where Docker is declared; `/etc/apt`: its repository with its key, "
        "and holds",
        "declared keys are merged in, yours stay; when ours go, a daemon that runs keeps them "
        "until its next start, and `data-root` stays",
        (*holds(_SOURCE[0].name, *CE_PACKAGES), *_SOURCE, *files(DOCKER_OWNED)),
        undo=partial(release_keys, DOCKER_OWNED),
    )
    yield Trace(
        "packages of Docker Engine and Compose, images",
        "where Docker is declared",
        packages(*CE_PACKAGES, "docker.io"),
        "stays",
        "containers of your own may run there; `docker image prune -a` frees what ours leave",
    )
