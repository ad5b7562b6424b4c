"""What nginx, nft and systemd say of files that a fleet's settings have made."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from fleet.declare.fleet import Fleet
from fleet.gateway import tls
from fleet.gateway.paths import (
    GATEWAY_CERTIFICATE,
    GATEWAY_CERTIFICATE_KEY,
    GATEWAY_CONFIG,
    GATEWAY_LOGS,
    GATEWAY_STATE,
)
from fleet.kit.files import ManagedFile
from fleet.kit.paths import LIB
from tests.unit.rendered import complaints, lay

_NO_HOST = (
    "echo 1 >/proc/sys/net/ipv4/ip_nonlocal_bind; echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind;"
)

# Sockets are made where they are declared: elsewhere their paths would be too long.
_STATE = f"mount -t tmpfs none /var/lib; mkdir -p /var/lib/nginx {GATEWAY_STATE};"


class Judges:
    """They work in `directory`, and judge a text once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._judged: dict[str, list[str]] = {}

    def complaint(self, files: Iterable[ManagedFile], fleet: Fleet) -> str:
        """What is wrong with `files`, all those that the hosts of `fleet` have; empty when good."""
        files = list(files)
        return "".join(said for file in files for said in self._said_of(file, files, fleet))

    def _said_of(self, file: ManagedFile, files: list[ManagedFile], fleet: Fleet) -> list[str]:
        judge = self._judge(file)
        if judge is None:
            return []
        digest = hashlib.sha256(f"{file.path}\0{file.text}".encode()).hexdigest()
        if digest not in self._judged:
            self._judged[digest] = list(judge(file, files, fleet))
        return self._judged[digest]

    def _judge(
        self, file: ManagedFile
    ) -> Callable[[ManagedFile, list[ManagedFile], Fleet], Iterator[str]] | None:
        if file.path == GATEWAY_CONFIG:
            return self._nginx
        return {".nft": _nft, ".json": _json, ".service": self._unit, ".timer": self._unit}.get(
            Path(file.path).suffix
        )

    def _nginx(self, config: ManagedFile, files: list[ManagedFile], fleet: Fleet) -> Iterator[str]:
        place = self._directory / "nginx"
        place.mkdir(exist_ok=True)
        certificate, key = tls.issued(fleet.secrets, "edge", ["localhost"], ["localhost"])
        (place / Path(GATEWAY_CERTIFICATE).name).write_text(certificate)
        (place / Path(GATEWAY_CERTIFICATE_KEY).name).write_text(key.get_secret_value())
        of_nginx = {str(Path(GATEWAY_CONFIG).parent), LIB}
        for file in files:
            if str(Path(file.path).parent) in of_nginx:
                # An older OpenSSL than the host's knows one curve less.
                text = file.text.replace("X25519MLKEM768:", "").replace(GATEWAY_LOGS, str(place))
                for folder in of_nginx:
                    text = text.replace(f"{folder}/", f"{place}/").replace(
                        f'"{folder}', f'"{place}'
                    )
                (place / file.staged_name).write_text(text)
        # In a network of its own any address can be bound, as on the host that has it.
        check = f"{_NO_HOST} {_STATE} exec nginx -q -t -c {place / Path(config.path).name}"
        yield from _said(["unshare", "--net", "--mount", "sh", "-c", check])

    def _unit(self, unit: ManagedFile, files: list[ManagedFile], _: Fleet) -> Iterator[str]:
        lay(self._directory, ManagedFile("docker.service", "[Service]\nExecStart=/bin/true\n"))
        for file in files:
            if Path(file.path).suffix in (".service", ".timer"):
                lay(self._directory, _with_programs(file))
        lay(self._directory, _with_programs(unit))
        if said := complaints(self._directory, unit.staged_name):
            yield f"{unit.path}: {said}"


def _with_programs(unit: ManagedFile) -> ManagedFile:
    """`unit` with programs that this machine has."""
    return replace(unit, content=re.sub(r"(?m)^(Exec\w+=[-+!@]*)/\S+", r"\1/bin/true", unit.text))


def _nft(file: ManagedFile, _: list[ManagedFile], __: Fleet) -> Iterator[str]:
    yield from _said(["unshare", "--net", "nft", "-c", "-f", "-"], file.text)


def _json(file: ManagedFile, _: list[ManagedFile], __: Fleet) -> Iterator[str]:
    try:
        json.loads(file.text)
    except ValueError as error:
        yield f"{file.path}: {error}\n"


def _said(command: list[str], given: str = "") -> Iterator[str]:
    result = subprocess.run(command, check=False, capture_output=True, text=True, input=given)
    if result.returncode:
        yield result.stderr or f"{command[0]} ended with {result.returncode}"
