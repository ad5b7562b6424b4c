"""Where the Ollama of a host keeps its models, and what lies there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fleet.declare.fleet import FleetHost
from fleet.kit.facts.places import Place
from fleet.kit.places import Directory
from fleet.ollama.models import HIDDEN_FROM_UNITS
from fleet.ollama.paths import OLLAMA_HOME, OLLAMA_ROOT, OLLAMA_USER
from fleet.ollama.settings import Ollama

# What Ollama and the loader make, which somebody may have copied there as root.
_MODELS = frozenset({"blobs", "manifests", ".llm-fleet", ".llm-fleet.lock"})


def home() -> Directory:
    """The home of the user."""
    return Directory(
        OLLAMA_HOME, OLLAMA_HOME, OLLAMA_USER, frozenset({"models", ".ollama"}), HIDDEN_FROM_UNITS
    )


def models_directory(settings: Ollama) -> Directory:
    """The directory of the weights."""
    return Directory(
        "ollama_models_dir", settings.models_dir, OLLAMA_USER, _MODELS, HIDDEN_FROM_UNITS
    )


def directories(host: FleetHost) -> Iterator[Directory]:
    """All of them, and that of the releases, which is root's."""
    yield home()
    yield models_directory(host[Ollama])
    yield Directory(OLLAMA_ROOT, OLLAMA_ROOT)


@dataclass(frozen=True)
class Storage:
    """Home and models directory as the host has them."""

    home: Place
    models: Place

    @classmethod
    def of(cls, settings: Ollama, places: Mapping[str, Place]) -> Storage:
        """It, when `places` are the host's."""
        return cls(places[OLLAMA_HOME], places[settings.models_dir])

    @property
    def needed(self) -> tuple[str, ...]:
        """What is to be mounted before a server starts: as declared, and where links lead."""
        return tuple(dict.fromkeys((*self.home.paths, *self.models.paths)))

    @property
    def mounts(self) -> dict[str, str]:
        """What a container is shown, place on the host to place in it.

        Never a path that the user could turn: what is below its home is in the home's mount, where
        a link leads to the container's own files.
        """
        mounts = {self.home.resolved: self.home.path}
        if not _is_below(self.models.resolved, self.home.resolved):
            own = _is_below(self.models.path, self.home.path)
            # A link of root's in the home leads to the same place in the container.
            mounts[self.models.resolved] = self.models.resolved if own else self.models.path
        return mounts

    @property
    def written(self) -> tuple[str, ...]:
        """What a server's unit opens to it, by the same rule."""
        return tuple(dict.fromkeys(path for both in self.mounts.items() for path in both[::-1]))


def asked_paths(settings: Ollama) -> list[str]:
    """The paths whose places make a `Storage`."""
    return [OLLAMA_HOME, settings.models_dir]


def _is_below(path: str, top: str) -> bool:
    return f"{path}/".startswith(f"{top}/")
