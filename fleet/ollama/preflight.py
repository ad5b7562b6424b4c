"""Hosts that have another installer's Ollama."""

from __future__ import annotations

from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.paths import UNITS
from fleet.ollama.paths import OLLAMA_HOME

_SERVERS = [f"{UNITS}/{name}" for name in ("ollama.service", "ollama@*.service")]
# Where another installer's units and drop-ins are.
UNIT_PATTERNS = [*_SERVERS, *(f"{unit}.d/*" for unit in _SERVERS)]


def refuse_foreign_installation(me: FleetHost, found: list[str]) -> None:
    """Refuse a host on which `found` are files of `UNIT_PATTERNS` that are not this project's.

    Another installer's unit runs as the same user on the same port, and its drop-ins win.

    Raises:
        FleetError: there are some.
    """
    if found:
        raise FleetError(
            f"{me.name}: Ollama was installed here by something else ({', '.join(found)}); to take "
            f"over, run there: systemctl disable --now ollama; rm {' '.join(found)}; "
            f"usermod --home {OLLAMA_HOME} ollama. Its models can be kept with "
            "ollama_models_dir"
        )
