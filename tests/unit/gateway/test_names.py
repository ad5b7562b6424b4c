"""How names of models are written, and which are one."""

from __future__ import annotations

import pytest

from fleet.gateway.names import plain
from fleet.ollama.models import check_model_name

# As Ollama's own parser takes them (types/model/name.go), to the name that is kept here.
NAMES = {
    "gpt-oss": "gpt-oss:latest",
    "gpt-oss:latest": "gpt-oss:latest",
    "GPT-OSS:20B": "gpt-oss:20b",
    "library/gpt-oss:20b": "gpt-oss:20b",
    "registry.ollama.ai/library/gpt-oss:20b": "gpt-oss:20b",
    "Registry.Ollama.AI/Library/gpt-oss": "gpt-oss:latest",
    "https://registry.ollama.ai/library/gpt-oss": "gpt-oss:latest",
    "registry.ollama.ai/team/m": "team/m:latest",
    "Team/m": "team/m:latest",
    "hf.co/team/Model_1.gguf:Q4_K_M": "hf.co/team/model_1.gguf:q4_k_m",
    "127.0.0.1:5000/library/tiny": "127.0.0.1:5000/library/tiny:latest",
    "http://localhost:5000/a/b:c": "localhost:5000/a/b:c",
    "_m": "_m:latest",
    "m" * 80 + ":" + "t" * 80: "m" * 80 + ":" + "t" * 80,
    "h" * 350 + "/n/m": "h" * 350 + "/n/m:latest",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/llama-3.1-8b-instruct:latest",
}
NO_NAMES = [
    "", ":", "/", "m:", ":t", "/m", "n/", "h//m", "//m", "a/b/c/d", "a.b/m", "m:t:u", "-m", ".m",
    "m:-t", "m:.t", "-h/n/m", "h/-n/m", "n:1/m", "m m", "m\n", "m\t", "m@sha256-5", "m+x", "ümlaut",
    "m" * 81, "m:" + "t" * 81, "n" * 81 + "/m", "h" * 351 + "/n/m", "http://m", "x://n/m",
    "m\u212a", "m\0", "m\\",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_written_in_one_way(name: str) -> None:
    assert plain(name) == NAMES[name]
    assert plain(NAMES[name]) == NAMES[name]


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_ollama_takes_for_no_name(text: str) -> None:
    assert plain(text) is None


@pytest.mark.parametrize("text", NO_NAMES)
def test_what_is_no_name_cannot_be_declared(text: str) -> None:
    """As a model, an alias, or what a key may use: nginx could not read it, and would not start."""
    with pytest.raises(ValueError, match="not a model name"):
        check_model_name(text)


def test_names_of_one_model() -> None:
    assert plain("gpt-oss") == plain("library/GPT-OSS:latest")
    assert plain("gpt-oss") != plain("gpt-oss:20b")
    assert plain("example.com/library/m") != plain("m")
