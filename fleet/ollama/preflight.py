"""Hosts that have another installer's Ollama."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

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
    if units := [path for path in found if path.endswith(".service")]:
        raise FleetError(
            f"{me.name}: Ollama was installed here by something else ({', '.join(found)}); to take "
            f"over, run there: {_stop(units)}; rm {shlex.join(found)}; usermod --home "
            f"{OLLAMA_HOME} ollama. Its models can be kept with ollama_models_dir"
        )
    if found:
        raise FleetError(
            f"{me.name}: somebody else's drop-ins would change how our Ollama runs "
            f"({', '.join(found)}); write what they are for into the inventory (ollama_env, or the "
            f"setting of its own), and run there: rm {shlex.join(found)}; the deploy then restarts "
            "Ollama where that is due"
        )


def _stop(units: list[str]) -> str:
    """Commands that end the units whose files these are; of a template, each of its units."""
    names = [PurePosixPath(path).name for path in units]
    templates = [name.replace("@.", "@*.") for name in names if "@." in name]
    plain = [name for name in names if "@." not in name]
    commands = [f"systemctl disable --now {shlex.join(plain)}"] if plain else []
    commands += [f"systemctl stop {shlex.join(templates)}"] if templates else []
    return "; ".join(commands)
