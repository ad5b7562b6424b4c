"""Values as Lua writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def literal(value: object) -> str:
    """A Lua expression for `value`: texts, numbers, booleans, and lists and mappings of them.

    What is None in a mapping is left out, as to Lua it is not there.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        pairs = (
            f"[{literal(name)}] = {literal(item)}"
            for name, item in value.items()
            if item is not None
        )
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, Sequence):
        return "{ " + ", ".join(literal(item) for item in value) + " }"
    raise TypeError(f"{type(value).__name__} is nothing that is written in Lua here")


def _text(text: str) -> str:
    plain = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03}"
        for byte in text.encode()
    )
    return f'"{"".join(plain)}"'
