"""Hosts that have another installer's Ollama."""

from __future__ import annotations

from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.paths import SNAP_UNITS, UNITS
from fleet.ollama.paths import OLLAMA_HOME

_SERVERS = [f"{UNITS}/{name}" for name in ("ollama.service", "ollama@*.service")]
# Where another installer's units and drop-ins are.
UNIT_PATTERNS = [*_SERVERS, *(f"{unit}.d/*" for unit in _SERVERS), SNAP_UNITS.format("ollama")]


def refuse_foreign_installation(me: FleetHost, found: list[str]) -> None:
    """Refuse a host on which `found` are files of `UNIT_PATTERNS` that are not this project's.

    Another installer's unit runs as the same user on the same port, and its drop-ins win.

    Raises:
        FleetError: there are some.
    """
    if any(path.startswith(f"{UNITS}/snap.") for path in found):
        raise FleetError(
            f"{me.name}: Ollama was installed here as a snap, which runs another server on the "
            "same port; run there: snap remove ollama. Copy its models to ollama_models_dir "
            "before, if they are to be kept"
        )
    if found:
        raise FleetError(
            f"{me.name}: Ollama was installed here by something else ({', '.join(found)}); to take "
            f"over, run there: systemctl disable --now ollama; rm {' '.join(found)}; "
            f"usermod --home {OLLAMA_HOME} ollama. Its models can be kept with "
            "ollama_models_dir"
        )
