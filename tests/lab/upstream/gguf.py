"""A GGUF file with two more keys, so that its model makes embeddings."""

import shutil
import struct
from pathlib import Path


def pooled(source: Path, target: Path) -> None:
    """Copy a GGUF file, saying how vectors are pooled; a second key keeps the alignment of 32."""
    more = _key(b"gemma3.pooling_type", 4, struct.pack("<I", 1))
    more += _key(b"lab.pad", 8, struct.pack("<Q", 2) + b"xx")
    assert len(more) % 32 == 0
    with source.open("rb") as old, target.open("wb") as new:
        head = old.read(24)
        keys = struct.unpack("<Q", head[16:])[0]
        new.write(head[:16] + struct.pack("<Q", keys + 2) + more)
        shutil.copyfileobj(old, new)


def _key(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value
