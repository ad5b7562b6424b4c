"""Secrets that a capability has on each of its hosts: made when missing, kept, and judged."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.secrets import host_secret


@dataclass(frozen=True)
class Secret:
    """How a secret is made, and what a value that somebody put in its place must be.

    `words` say what `form` asks for. No form allows what `.env`, Compose, a URL or a shell would
    read in another way.
    """

    make: Callable[[], str] = lambda: secrets.token_hex(32)
    form: str = r"[A-Za-z0-9_-]{16,}"
    words: str = "at least 16 letters, digits, - or _"

    def problem(self, path: Path, value: str) -> str | None:
        """What is wrong with the `value` that is kept in `path`; None when it fits."""
        if re.fullmatch(self.form, value):
            return None
        return f"{path} is not {self.words}; delete it to have one generated"


@dataclass(frozen=True)
class OwnSecrets:
    """The secrets of one capability, by their names on a host."""

    capability: str
    secrets: Mapping[str, Secret]

    def name(self, host: FleetHost, secret: str) -> str:
        """What the secrets store calls a secret on `host`."""
        return host_secret(self.capability, host.name, secret)

    def of(self, host: FleetHost, fleet: Fleet) -> dict[str, str]:
        """Every secret on `host`, by its name; missing ones are made and kept."""
        return {
            name: fleet.secrets.text(self.name(host, name), secret.make).get_secret_value()
            for name, secret in self.secrets.items()
        }

    def stored(self, host: FleetHost, fleet: Fleet) -> Iterator[tuple[Path, str, Secret]]:
        """Where each secret is kept that is there already, its value, and what it must be."""
        for name, secret in self.secrets.items():
            value = fleet.secrets.read(self.name(host, name))
            if value is not None:
                yield fleet.secrets.path(self.name(host, name)), value.get_secret_value(), secret
