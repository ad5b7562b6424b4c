"""What is read of the beginning of a GGUF file."""

from __future__ import annotations

import struct

import pytest

from fleet.gates.gguf import Keys, read_keys
from tests.gguf import gguf


class TestGguf:
    def test_keys(self) -> None:
        head = gguf(
            general__architecture="gptoss", gptoss__block_count=24, a=[1, 2], b=0.5, c=["x"]
        )
        assert read_keys(head).values == {
            "general.architecture": "gptoss", "gptoss.block_count": 24, "a": [1, 2], "b": 0.5,
            "c": ["x"],
        }  # fmt: skip
        assert read_keys(head).counts == {"a": 2, "c": 1}

    def test_cut_in_the_tokenizer(self) -> None:
        head = gguf(general__architecture="x", tokenizer__ggml__tokens=["abc"] * 1_000)
        for length in (80, 200, len(head) - 1):
            keys = read_keys(head[:length])
            assert keys.values == {"general.architecture": "x"}
        assert keys.counts == {"tokenizer.ggml.tokens": 1_000}

    def test_other_files(self) -> None:
        with pytest.raises(ValueError, match="no GGUF"):
            read_keys(b"<html>not found</html>")

    @pytest.mark.parametrize("count", [1, 2**60])
    def test_lists_of_lists_without_end(self, count: int) -> None:
        nested = struct.pack("<IQ", 9, count) * 10_000
        head = gguf(general__architecture="x", a=[1])
        hostile = head[:16] + struct.pack("<Q", 3) + head[24:] + _named(b"bad", 9) + nested
        assert read_keys(hostile).values == {"general.architecture": "x", "a": [1]}

    @pytest.mark.parametrize("length", [2**63, 2**64 - 1])
    def test_lengths_beyond_all_files(self, length: int) -> None:
        body = _named(b"text", 8) + struct.pack("<Q", length)
        assert read_keys(_head(1, body)) == Keys()
        body = _named(b"list", 9) + struct.pack("<IQ", 4, length) + b"1234"
        assert read_keys(_head(2**64 - 1, body)).counts == {"list": length}


def _named(name: bytes, kind: int) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind)


def _head(keys: int, body: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, 0, keys) + body
