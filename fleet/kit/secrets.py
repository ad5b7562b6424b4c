"""Named secrets, one store an inventory.

Where the values lie, encrypted or not, is told in `fleet/kit/storage.py`. They are generated when
a deploy first asks for them and then kept, so that a rebuilt fleet has the keys that its clients
know.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
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


class Making(Enum):
    """What becomes of a secret that a store lacks: only a deploy may make one.

    Whoever reads a store that lacks one has the wrong store, and a value that was made there and
    then is one that no host knows.
    """

    KEPT = "it is made, and kept"
    PLANNED = "it is made, and kept once the question whether to deploy is answered"
    IMAGINED = "something stands in its place for this run, and is kept nowhere"
    REFUSED = "whoever asks is told"


# Store to the names of what a deploy would make in it, for a run that only looks.
_IMAGINED: dict[Path, dict[str, SecretStr]] = {}
_LOOKING: list[bool] = []
_ASKING: list[bool] = []
# The stores of a run that asks first; each is its fleet's only one in this process.
_PLANNED: dict[Path, SecretStore] = {}


def only_look() -> None:
    """Have this process, which would otherwise deploy, write into no store."""
    _LOOKING.append(True)


def ask_first() -> None:
    """Have this process, which deploys once that is confirmed, write into no store before."""
    _ASKING.append(True)


def keep_planned() -> None:
    """Keep what this run has made while it planned: from now on it deploys.

    Raises:
        FleetError: another run was first with a secret, or a store cannot be written.
    """
    for store in _PLANNED.values():
        store.keep_planned()


def imagined() -> dict[Path, tuple[str, ...]]:
    """Each store that lacks secrets which a deploy would make, to their names."""
    return {root: tuple(sorted(values)) for root, values in _IMAGINED.items() if values}


def making_of(*, deploys: bool) -> Making:
    """What a process does about missing secrets; `deploys` says that it may be a deploy."""
    if not deploys:
        return Making.REFUSED
    if _LOOKING:
        return Making.IMAGINED
    return Making.PLANNED if _ASKING else Making.KEPT


class Previous(NamedTuple):
    """The value that a key had before its rotation, and until when it is still let in."""

    value: SecretStr
    until: datetime


class SecretStore:
    """The secrets of one inventory, kept under `root`: as plain files, if nothing else is said.

    `name` is what the fleet is called, wherever its secrets are, and `making` what becomes of
    missing ones.
    """

    making = Making.KEPT

    def __init__(self, root: Path, kept: Storage | None = None, name: str | None = None) -> None:
        self.root = root
        self.name = name or root.name
        self.kept = kept or PlainFiles(root)
        # What is not new of that which this run has made for itself alone so far.
        self._renewed: set[str] = set()

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
        return self.text(name, lambda: f"sk-{secrets.token_hex(32)}")

    def text(self, name: str, make: Callable[[], str]) -> SecretStr:
        """The secret text `name`, made by `make` when missing.

        Raises:
            FleetError: it is missing, and this process may make none.
        """
        kept = self._imagined.get(name) or self.read(name)
        if kept is not None:
            return kept
        if not self.makes:
            raise FleetError(
                f"{self.path(name)}: this store has no such secret, and reading makes none; deploy "
                "first, or copy the store that the gateways were deployed from"
            )
        self.kept.expect(name)
        if self.making is Making.KEPT:
            return self._keep(name, make())
        return self._imagined.setdefault(name, SecretStr(make().strip()))

    @property
    def makes(self) -> bool:
        """Whether this process makes what is missing, be it for this run alone."""
        return self.making is not Making.REFUSED

    def renew(self, name: str, make: Callable[[], str]) -> SecretStr | None:
        """`make` a new value of `name`, which is there; None in a process that may make none."""
        if not self.makes:
            return None
        self.kept.expect(name)
        value = SecretStr(make().strip())
        if self.making is Making.KEPT:
            self.replace(name, value.get_secret_value())
        else:
            self._imagined[name] = value
            self._renewed.add(name)
        return value

    @property
    def _imagined(self) -> dict[str, SecretStr]:
        if self.making is Making.PLANNED:
            _PLANNED.setdefault(self.root, self)
        is_kept = self.making in (Making.KEPT, Making.REFUSED)
        return {} if is_kept else _IMAGINED.setdefault(self.root, {})

    def keep_planned(self) -> None:
        """Keep what was made for this run alone so far, and whatever comes from now on.

        Raises:
            FleetError: another run was first with a secret, or it cannot be written.
        """
        planned = _IMAGINED.get(self.root, {})
        for name, value in list(planned.items()):
            text = value.get_secret_value()
            if name in self._renewed:
                self.replace(name, text)
            elif self._keep(name, text) != value:
                raise FleetError(
                    f"{self.path(name)}: another run has made this secret since this deploy was "
                    "planned, with another value; deploy again"
                )
            planned.pop(name, None)
        self.making = Making.KEPT

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
