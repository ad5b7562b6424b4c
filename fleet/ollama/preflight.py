"""Hosts that have another installer's Ollama."""

from __future__ import annotations

from pyinfra import host

from fleet.declare.fleet import FleetHost
from fleet.kit import paths
from fleet.kit.errors import FleetError
from fleet.kit.facts.foreign import ForeignFiles
from fleet.ollama.paths import OLLAMA_HOME


def refuse_foreign_installation(me: FleetHost) -> None:
    """Another installer's unit runs as the same user on the same port, and its drop-ins win."""
    servers = [f"{paths.UNITS}/{name}" for name in ("ollama.service", "ollama@*.service")]
    found = host.get_fact(ForeignFiles, patterns=[*servers, *(f"{unit}.d/*" for unit in servers)])
    if found:
        raise FleetError(
            f"{me.name}: Ollama was installed here by something else ({', '.join(found)}); to take "
            f"over, run there: systemctl disable --now ollama; rm {' '.join(found)}; "
            f"usermod --home {OLLAMA_HOME} ollama. Its models can be kept with "
            "ollama_models_dir"
        )
