"""The head of a GGUF file: the keys that say how large a model's cache will be.

Format: ggml's docs/gguf.md. Keys about the architecture come before the tokenizer's, so the first
hundred kilobytes of a file hold them, however large it is. Who made the file may mean harm: no
more is read, or believed of numbers, than `HEAD` bytes can hold.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

HEAD = 131_072  # bytes of a file that are read for its keys

_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Keys:
    """What a head tells: the values of its keys, and of each list how many items it has.

    A list that goes on beyond the head has no value.
    """

    values: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


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
        if kind not in _SCALARS:
            raise ValueError(f"no GGUF: a value has the type {kind}")
        return self.scalar(_SCALARS[kind])


def read_keys(head: bytes) -> Keys:
    """The keys at the beginning of a GGUF file, as many as `head` holds whole.

    A list of lists ends what is read: no key of a model is one.

    Raises:
        ValueError: it is no GGUF file.
    """
    if head[:4] != b"GGUF":
        raise ValueError("no GGUF: it begins in another way")
    reader = _Reader(head[4:HEAD])
    keys = Keys()
    try:
        reader.scalar("I")  # version
        reader.scalar("Q")  # tensors
        for _ in range(reader.scalar("Q")):
            name, kind = reader.text(), reader.scalar("I")
            if kind == _ARRAY:
                inner, keys.counts[name] = reader.scalar("I"), reader.scalar("Q")
                if inner == _ARRAY:
                    break
                keys.values[name] = [reader.value(inner) for _ in range(keys.counts[name])]
            else:
                keys.values[name] = reader.value(kind)
    except struct.error:
        # The end of what was read, in the middle of the tokenizer's lists.
        pass
    return keys
