"""What a fleet's secrets store signs, and whether it did.

The key is made of the secret that tells one store from another, which the first deploy makes:
signing needs no secret of its own, and reading makes none.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fleet.kit.errors import FleetError
from fleet.kit.secrets import SecretStore

_PURPOSE: Final = b"llm-fleet report signature"
# The last line of a signed file; whatever is before it is signed, and nothing may follow.
_LINE = re.compile(
    rb"<!-- llm-fleet signature ed25519 (?P<key>[0-9a-f]{64}) (?P<signature>[\w+/=]{88}) -->\n\Z"
)


def signing_key(store: SecretStore) -> Ed25519PrivateKey | None:
    """The key that the store signs with; None when no deploy has made its identity yet."""
    secret = store.read("store_id")
    if secret is None:
        return None
    derived = HKDF(SHA256(), length=32, salt=None, info=_PURPOSE)
    return Ed25519PrivateKey.from_private_bytes(derived.derive(secret.get_secret_value().encode()))


def public_key(key: Ed25519PrivateKey) -> str:
    """What tells the key to others: 64 hex digits that are not secret."""
    return key.public_key().public_bytes_raw().hex()


def signed(text: str, key: Ed25519PrivateKey) -> bytes:
    """The `text` with a last line that signs it."""
    content = f"{text.rstrip()}\n".encode()
    signature = base64.b64encode(key.sign(content)).decode()
    return (
        content + f"<!-- llm-fleet signature ed25519 {public_key(key)} {signature} -->\n".encode()
    )


def check_signed(content: bytes, key: Ed25519PrivateKey) -> None:
    """Return if `content` is what `key` has signed, to the last byte.

    Raises:
        FleetError: it is not, or was not signed at all, or by another store.
    """
    found = _LINE.search(content)
    if found is None:
        raise FleetError("not signed, or something was written behind its signature")
    if found["key"].decode() != public_key(key):
        raise FleetError(
            f"signed by another store, whose public key is {found['key'].decode()}; that of this "
            f"fleet's is {public_key(key)}"
        )
    public: Ed25519PublicKey = key.public_key()
    try:
        public.verify(base64.b64decode(found["signature"]), content[: found.start()])
    except InvalidSignature:
        raise FleetError("changed since it was signed") from None
