"""Where Ollama is kept on a host, and the units."""

from __future__ import annotations

from fleet.declare.logs import Logs
from fleet.kit.paths import UNITS

OLLAMA_USER = "ollama"
OLLAMA_HOME = "/var/lib/ollama"
OLLAMA_ROOT = "/opt/ollama"
OLLAMA_CURRENT = f"{OLLAMA_ROOT}/current"
OLLAMA_BINARY = f"{OLLAMA_CURRENT}/bin/ollama"
OLLAMA_UNIT = "ollama.service"
# Provides the models whenever a server starts.
LOADER_UNIT = "ollama-models.service"
LOADER_UNIT_FILE = f"{UNITS}/{LOADER_UNIT}"


def release_binary(version: str) -> str:
    """The server of one release, whichever runs."""
    return f"{OLLAMA_ROOT}/{version}/bin/ollama"


def ollama_instance_unit(name: str) -> str:
    """The unit of one of several Ollama servers."""
    return f"ollama@{name}.service"


def ollama_container(name: str) -> str:
    """What Docker calls the container of one of several Ollama servers."""
    return f"ollama-{name}"


LOGS = Logs(
    units=(OLLAMA_UNIT, ollama_instance_unit("*")),
)
