"""What every host with secrets has: a note of where they are from."""

from __future__ import annotations

from fleet.declare.fleet import Fleet
from fleet.kit.files import ManagedFile
from fleet.kit.paths import SECRETS_STORE


def secrets_note(fleet: Fleet) -> ManagedFile:
    """The identity of the secrets store that the host's secrets are from."""
    return ManagedFile(SECRETS_STORE, f"{fleet.secrets.identity}\n")
