"""What is read of the beginning of a GGUF file."""

from __future__ import annotations

import pytest

from fleet.gates.gguf import read_keys
from tests.gguf import gguf


class TestGguf:
    def test_keys(self) -> None:
        head = gguf(
            general__architecture="gptoss", gptoss__block_count=24, a=[1, 2], b=0.5, c=["x"]
        )
        assert read_keys(head) == {
            "general.architecture": "gptoss", "gptoss.block_count": 24, "a": [1, 2], "b": 0.5,
            "c": ["x"],
        }  # fmt: skip

    def test_cut_in_the_tokenizer(self) -> None:
        head = gguf(general__architecture="x", tokenizer__ggml__tokens=["abc"] * 1_000)
        for length in (80, 200, len(head) - 1):
            assert read_keys(head[:length]) == {"general.architecture": "x"}

    def test_other_files(self) -> None:
        with pytest.raises(ValueError, match="no GGUF"):
            read_keys(b"<html>not found</html>")
