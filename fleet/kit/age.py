"""Encryption with age: for whom, and with which identity of this operator it is undone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyrage

from fleet.kit.errors import FleetError

# As sops has SOPS_AGE_KEY and SOPS_AGE_KEY_FILE.
KEY, KEY_FILE = "FLEET_AGE_KEY", "FLEET_AGE_KEY_FILE"
_USUAL = ("~/.config/llm-fleet/age.txt", "~/.ssh/id_ed25519", "~/.ssh/id_rsa")

# pyrage tells no types: its two kinds of each, age's own and SSH's.
_Recipient: TypeAlias = Any
_Identity: TypeAlias = Any


@dataclass(frozen=True)
class Identities:
    """What this operator can decrypt with, where it is from, and why something was left out."""

    usable: tuple[_Identity, ...]
    places: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def recipients_of(path: Path) -> list[_Recipient]:
    """The recipients in the file `path`, one a line as age has them; `#` begins a comment.

    Raises:
        FleetError: there is no such file, or none in it, or a line is no recipient.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise FleetError(f"{path}: {error.strerror}; it says who can decrypt the secrets") from None
    found = [
        recipient(line.strip(), f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not found:
        raise FleetError(f"{path}: no recipient; nobody could decrypt what is encrypted to it")
    return found


def recipient(text: str, place: str) -> _Recipient:
    """The recipient `text`: an age public key, or an SSH one of Ed25519 or RSA.

    Raises:
        FleetError: it is none; `place` is where it was written.
    """
    is_ssh = text.startswith("ssh-")
    if "PRIVATE" in text or "SECRET" in text:
        raise FleetError(f"{place}: this is a private key; write the public one")
    try:
        kind = pyrage.ssh.Recipient if is_ssh else pyrage.x25519.Recipient
        return kind.from_str(text)
    except pyrage.RecipientError as error:
        raise FleetError(
            f"{place}: {text[:60]!r}: no recipient ({error}); write an age public key (age1...) "
            "or an SSH one (ssh-ed25519 ... or ssh-rsa ...)"
        ) from None


def own_identities() -> Identities:
    """What this operator decrypts with: of the environment, else of the usual files.

    Raises:
        FleetError: what the environment names is no identity.
    """
    if text := os.environ.get(KEY, "").strip():
        return Identities(tuple(_parsed(text, KEY)), (KEY,))
    if named := os.environ.get(KEY_FILE):
        path = Path(named).expanduser()
        return Identities(tuple(_parsed(_text(path), str(path))), (str(path),))
    usable: list[_Identity] = []
    places, left_out = [], []
    for path in (Path(item).expanduser() for item in _USUAL):
        if path.is_file():
            try:
                usable += _parsed(_text(path), str(path))
                places.append(str(path))
            except FleetError as error:
                left_out.append(str(error))
    return Identities(tuple(usable), tuple(places), tuple(left_out))


def encrypted(value: str, recipients: Iterable[_Recipient]) -> bytes:
    """`value` for all `recipients`, as lines of text."""
    content: bytes = pyrage.encrypt(value.encode(), list(recipients), armored=True)
    return content


def decrypted(path: Path, content: bytes, identities: Identities) -> str:
    """What `content`, of the file `path`, hides.

    Raises:
        FleetError: no identity of this operator decrypts it.
    """
    if not identities.usable:
        raise FleetError(
            f"{path}: there is nothing to decrypt it with; set {KEY_FILE} to the file of an age "
            f"identity or of an SSH key without a passphrase{_besides(identities)}"
        )
    try:
        value: bytes = pyrage.decrypt(content, list(identities.usable))
        return value.decode()
    except (pyrage.DecryptError, UnicodeDecodeError) as error:
        raise FleetError(
            f"{path}: cannot be decrypted with {', '.join(identities.places)} ({error}); set "
            f"{KEY_FILE} to the right identity, or have somebody who can read it add yours to "
            f"{path.parent.name}/recipients.txt, run `fleet secrets rekey` and commit"
            f"{_besides(identities)}"
        ) from None


def _besides(identities: Identities) -> str:
    return "".join(f"; left out: {why}" for why in identities.left_out)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise FleetError(f"{path}: {why}; it should be an age identity or an SSH key") from None


def _parsed(text: str, place: str) -> list[_Identity]:
    """The identities in `text`: an SSH private key, or lines of age-keygen."""
    try:
        if "PRIVATE KEY-----" in text:
            return [pyrage.ssh.Identity.from_buffer(f"{text.strip()}\n".encode())]
        lines = [line.strip() for line in text.splitlines()]
        found = [
            pyrage.x25519.Identity.from_str(line)
            for line in lines
            if line and not line.startswith("#")
        ]
    except pyrage.IdentityError as error:
        raise FleetError(
            f"{place}: no identity that can be used ({error}); an age identity "
            "(AGE-SECRET-KEY-1...) and an SSH key of Ed25519 or RSA without a passphrase can"
        ) from None
    if not found:
        raise FleetError(f"{place}: no identity in it; age-keygen makes one")
    return found
