"""Secrets from one kind of store to another: cut short, each is still in one of them.

While both are there, neither counts: whoever opens the fleet is told to finish the move.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.kit import age
from fleet.kit.errors import FleetError
from fleet.kit.storage import AgeFiles, FromCommand, Storage, given_by

_HEAD = "# Who can decrypt these secrets, one a line; after a change run `fleet secrets rekey`.\n"


def set_up_age(store: AgeFiles, recipients: Iterable[str]) -> None:
    """Have an encrypted store for `recipients`, in age's words, which may be there already.

    Raises:
        FleetError: one is no recipient, none is this operator's, or it is there for others.
    """
    wanted = [text.strip() for text in recipients]
    parsed = [age.recipient(text, "--age") for text in wanted]
    if store.recipients.exists():
        there = _lines(store.recipients)
        if set(there) != set(wanted):
            raise FleetError(
                f"{store.recipients}: this store is there already, for others; change that file "
                "and run `fleet secrets rekey`"
            )
        return
    probe = age.encrypted("probe", parsed)
    # Before anything is encrypted that its owner could not read again.
    age.decrypted(Path("a secret for these recipients"), probe, age.own_identities())
    store.root.mkdir(parents=True, exist_ok=True)
    _write(store.recipients, _HEAD + "".join(f"{line}\n" for line in wanted))


def set_up_command(store: FromCommand, command: str, sources: Sequence[Storage]) -> None:
    """Have the secrets given by the shell command `command`, which knows those of `sources`.

    Raises:
        FleetError: it fails, gives another value for a secret or none, or another one is declared.
    """
    if store.root.exists() and store.root.read_text().strip() != command:
        raise FleetError(f"{store.root}: another command is declared already; change it there")
    given = given_by(command, "--command", store.project)
    for source in sources:
        others = [
            name for name in source.names() if source.read(name) != given.get(name, "").strip()
        ]
        if others:
            raise FleetError(
                f"--command: gives {', '.join(others)} otherwise than {source.root}, or not at "
                "all; `fleet secrets export` prints what it has to give"
            )
    store.root.parent.mkdir(parents=True, exist_ok=True)
    _write(store.root, f"{command}\n")


class Moved(NamedTuple):
    """How many secrets were moved, and which files, of none of them, are still where those were."""

    number: int
    left: tuple[Path, ...]


def move(source: Storage, target: Storage) -> Moved:
    """Have in `target` whatever `source` has, and remove there what can be read back.

    Raises:
        FleetError: `target` has another value of one; nothing is removed then.
    """
    with source.locked():
        values = {name: source.read(name) or "" for name in source.names()}
        others = [name for name, value in values.items() if _kept(target, name, value) != value]
        if others:
            raise FleetError(
                f"{', '.join(others)}: in {source.root} and in {target.root} with different "
                "values; remove the wrong ones and run this again"
            )
        left = source.clear(values)
    return Moved(len(values), tuple(source.root / name for name in left))


def _kept(target: Storage, name: str, value: str) -> str | None:
    if target.read(name) is None:
        target.keep(name, value)
    # As it will be read from now on, and not only as it was written.
    return target.read(name)


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.rename(path)
