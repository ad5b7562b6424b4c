"""Named secrets, one store an inventory.

Where the values lie, encrypted or not, is told in `fleet/kit/storage.py`. They are generated when
first asked for and then kept, so that a rebuilt fleet has the keys that its clients know.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from fleet.kit.errors import FleetError
from fleet.kit.storage import PlainFiles, Storage

# Printed in the documentation, so never accepted as a real value.
EXAMPLE_KEY = "sk-" + "0123456789abcdef" * 4


def host_secret(capability: str, host: str, secret: str) -> str:
    """What a store calls a secret of one host alone."""
    return f"{capability}_{host_in_store(host)}_{secret}"


def host_in_store(host: str) -> str:
    """What a store calls `host`: a connector's name may have a slash."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", host).strip("-")


class Previous(NamedTuple):
    """The value that a key had before its rotation, and until when it is still let in."""

    value: SecretStr
    until: datetime


class SecretStore:
    """The secrets of one inventory, kept under `root`: as plain files, if nothing else is said.

    `name` is what the fleet is called, wherever its secrets are.
    """

    def __init__(self, root: Path, kept: Storage | None = None, name: str | None = None) -> None:
        self.root = root
        self.name = name or root.name
        self.kept = kept or PlainFiles(root)

    def path(self, name: str) -> Path:
        """Where the secret `name` is kept."""
        return self.kept.place(name)

    def read(self, name: str) -> SecretStr | None:
        """The value of `name`, or None when the store has none.

        Raises:
            FleetError: it is empty, others than its owner can read it, or it cannot be decrypted.
        """
        value = self.kept.read(name)
        return None if value is None else SecretStr(value)

    @property
    def identity(self) -> str:
        """Which store this is: 64 hex digits that are not secret."""
        return hashlib.sha256(self.api_key("store_id").get_secret_value().encode()).hexdigest()

    def api_key(self, name: str) -> SecretStr:
        """The API key `name`, generated when missing: `sk-` and 64 lower-case hex digits."""
        return self.read(name) or self._keep(name, f"sk-{secrets.token_hex(32)}")

    def text(self, name: str, make: Callable[[], str]) -> SecretStr:
        """The secret text `name`, made by `make` when missing."""
        return self.read(name) or self._keep(name, make())

    def previous(self, name: str) -> Previous | None:
        """What `rotate` kept of the API key `name`, be it still valid or not.

        Raises:
            FleetError: the file is not one that `rotate` writes.
        """
        kept = self.read(f"{name}.previous")
        if kept is None:
            return None
        try:
            value, until = kept.get_secret_value().split()
            return Previous(SecretStr(value), datetime.fromisoformat(until).astimezone(UTC))
        except ValueError:
            path = self.path(f"{name}.previous")
            raise FleetError(
                f"{path}: not a key and the time until when it is valid; delete the file to end "
                "the overlap"
            ) from None

    def rotate(self, name: str, until: datetime) -> SecretStr:
        """Give the API key `name` a new value; the present one is kept as valid `until` then.

        Raises:
            FleetError: there is no present value, or the one before it is still valid.
        """
        with self.kept.locked():
            present, before = self.read(name), self.previous(name)
            if present is None:
                raise FleetError(f"{self.path(name)}: no such key yet; the next deploy makes it")
            if before is not None and before.until > datetime.now(UTC) and before.value != present:
                raise FleetError(
                    f"{name}: rotated before, and its value from then is promised until "
                    f"{before.until.isoformat(timespec='seconds')}; to end that overlap now, "
                    f"delete {self.path(f'{name}.previous')}"
                )
            # First what is kept: cut short here, the key has one value twice, and never none.
            kept = f"{present.get_secret_value()} {until.isoformat(timespec='seconds')}"
            self.replace(f"{name}.previous", kept)
            value = f"sk-{secrets.token_hex(32)}"
            self.replace(name, value)
            return SecretStr(value)

    def replace(self, name: str, value: str) -> None:
        """Have `value` as the secret `name`, whatever it was before."""
        self.kept.write(name, value)

    def _keep(self, name: str, value: str) -> SecretStr:
        return SecretStr(self.kept.keep(name, value))
