"""The beginnings of GGUF files."""

from __future__ import annotations

import struct
from typing import Any

# The keys of the real files: layers, half of them with a window of 128 tokens, 8 KV heads of 64.
GPT_OSS: dict[str, Any] = {
    "general.architecture": "gptoss",
    "gptoss.block_count": 24,
    "gptoss.context_length": 131_072,
    "gptoss.embedding_length": 2_880,
    "gptoss.attention.head_count": 64,
    "gptoss.attention.head_count_kv": 8,
    "gptoss.attention.key_length": 64,
    "gptoss.attention.value_length": 64,
    "gptoss.attention.sliding_window": 128,
}


def gguf(**keys: Any) -> bytes:
    """The head of a GGUF file, as its writers make it."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    def typed(value: Any) -> bytes:
        if isinstance(value, str):
            return struct.pack("<I", 8) + text(value)
        if isinstance(value, list):
            items = b"".join(typed(item)[4:] for item in value)
            return (
                struct.pack("<IIQ", 9, struct.unpack("<I", typed(value[0])[:4])[0], len(value))
                + items
            )
        return (
            struct.pack("<If", 6, value)
            if isinstance(value, float)
            else struct.pack("<II", 4, value)
        )

    body = b"".join(text(name.replace("__", ".")) + typed(value) for name, value in keys.items())
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + body
