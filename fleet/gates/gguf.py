"""The head of a GGUF file: the keys that say how large a model's cache will be.

Format: ggml's docs/gguf.md. Keys about the architecture come before the tokenizer's, so the first
hundred kilobytes of a file hold them, however large it is.
"""

from __future__ import annotations

import struct
from typing import Any

HEAD = 131_072  # bytes of a file that are read for its keys

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9


class _Reader:
    """Reads on from where it is; struct.error at the end of what there is."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def scalar(self, code: str) -> Any:
        [value] = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(f"<{code}")
        return value

    def text(self) -> str:
        length = self.scalar("Q")
        piece = self._data[self._at : self._at + length]
        if len(piece) < length:
            raise struct.error("the text goes on beyond what was read")
        self._at += length
        return piece.decode(errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            inner, count = self.scalar("I"), self.scalar("Q")
            return [self.value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"no GGUF: a value has the type {kind}")
        return self.scalar(_SCALARS[kind])


def read_keys(head: bytes) -> dict[str, Any]:
    """The keys at the beginning of a GGUF file, as many as `head` holds whole.

    Raises:
        ValueError: it is no GGUF file.
    """
    if head[:4] != b"GGUF":
        raise ValueError("no GGUF: it begins in another way")
    reader = _Reader(head[4:])
    keys: dict[str, Any] = {}
    try:
        reader.scalar("I")  # version
        reader.scalar("Q")  # tensors
        for _ in range(reader.scalar("Q")):
            name = reader.text()
            keys[name] = reader.value(reader.scalar("I"))
    except struct.error:
        # The end of what was read, in the middle of the tokenizer's lists.
        pass
    return keys
