"""What follows from the settings of weights."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fleet.declare.fleet import FleetHost
from fleet.kit.places import Directory
from fleet.weights import paths
from fleet.weights.lock import Lock, read_lock
from fleet.weights.paths import KEPT, WEIGHTS_USER
from fleet.weights.settings import Weights, WeightsDeclaration


@dataclass(frozen=True)
class DeclaredWeights:
    """Weights of a host: `folder` is where its files are, once all of them are there."""

    declaration: WeightsDeclaration
    folder: str
    lock_path: Path

    @property
    def name(self) -> str:
        """What the host calls them."""
        return self.declaration.name

    @cached_property
    def lock(self) -> Lock:
        """Their files.

        Raises:
            FleetError: the lock cannot be read; the settings are refused for it.
        """
        return read_lock(self.lock_path)

    @property
    def bytes(self) -> int:
        """Of all files; raises as `lock` does."""
        return self.lock.bytes


def declared(host: FleetHost) -> dict[str, DeclaredWeights]:
    """The weights that `host` is to have, by name."""
    settings = host[Weights]
    return {
        item.name: DeclaredWeights(
            item,
            paths.folder(settings.dir, item.name, item.revision),
            host.root / item.lock,
        )
        for item in settings.weights
    }


def is_off(host: FleetHost) -> bool:
    """Whether `host` is to have no weights."""
    return not host[Weights].weights


def weights_directory(host: FleetHost) -> Directory:
    """Where they are kept."""
    return Directory("weights_dir", host[Weights].dir, WEIGHTS_USER, frozenset(KEPT))


def directories(host: FleetHost) -> Iterator[Directory]:
    """That, on a host that has some."""
    if not is_off(host):
        yield weights_directory(host)


def lock_command(item: WeightsDeclaration) -> str:
    """What writes the lock of a declaration."""
    words = ["fleet", "weights", "lock", item.repository, "--revision", item.revision]
    for option, patterns in (("--include", item.include), ("--exclude", item.exclude)):
        for pattern in patterns if patterns != ("*",) else ():
            words += [option, pattern]
    if item.source != "huggingface":
        words += ["--source", item.source]
    return shlex.join([*words, "-o", item.lock])


def token_name(settings: Weights) -> str | None:
    """What the store calls the token for gated repositories; None without one."""
    return None if settings.token is None else f"weights_token_{settings.token}"
