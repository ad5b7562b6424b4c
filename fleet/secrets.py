"""Named secrets, one store an inventory, outside git.

A store is a directory of mode 0700 with one file of mode 0600 a secret. Values are generated when
first asked for and then kept, so that a rebuilt fleet has the keys that its clients know.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from pydantic import SecretStr

from fleet.errors import FleetError

# Printed in the documentation, so never accepted as a real value.
EXAMPLE_KEY = "sk-" + "0123456789abcdef" * 4


class SecretStore:
    """The secrets of one inventory, kept under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        """Where the secret `name` is kept."""
        return self.root / name

    def read(self, name: str) -> SecretStr | None:
        """The value of `name`, or None when the store has none.

        Raises:
            FleetError: the file is empty, or others than its owner can read it.
        """
        path = self.path(name)
        if not path.exists():
            return None
        if path.stat().st_mode & 0o077:
            raise FleetError(f"{path}: other users can read this secret; run chmod 600 {path}")
        value = path.read_text().strip()
        if not value:
            raise FleetError(f"{path}: empty secret; delete the file to have one generated")
        return SecretStr(value)

    def api_key(self, name: str) -> SecretStr:
        """The API key `name`, generated when missing: `sk-` and 64 lower-case hex digits."""
        return self.read(name) or self._keep(name, f"sk-{secrets.token_hex(32)}")

    def _keep(self, name: str, value: str) -> SecretStr:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        # mkstemp makes the file 0600. link() fails when another deploy was first: its value counts.
        descriptor, temporary = tempfile.mkstemp(dir=self.root, prefix=f".{name}.")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(value + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, self.path(name))
        except FileExistsError:
            kept = self.read(name)
            if kept is None:
                raise FleetError(
                    f"{self.path(name)}: removed while it was read; run again"
                ) from None
            return kept
        finally:
            Path(temporary).unlink()
        return SecretStr(value)
