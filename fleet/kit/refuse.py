"""A host that is refused while the others go on."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import operation

from fleet.kit.commands import Commands, fail


@operation()
def refuse(message: str) -> Commands:
    """Fail this host with `message` and change nothing on it; the rest of the fleet goes on."""
    yield fail(f"{host.name}: {message}")
