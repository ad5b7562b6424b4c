"""The list of what may pass, beside the request types of the release that is deployed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.gateway.fields import ALLOWED, ANY, MODEL, Each, Shape, Withheld, as_lua
from fleet.pins import OLLAMA_VERSION

RELEASE = json.loads((Path(__file__).parent / "ollama_requests.json").read_text())
# What an inference key may not say, in all: a field that is added to it is added here too.
WITHHELD = {
    "api/chat": {"keep_alive", "shift", "_debug_render_only", "options"},
    "api/generate": {
        "keep_alive", "shift", "_debug_render_only", "options", "template", "width", "height",
        "steps",
    },
    "api/embed": {"keep_alive", "options"},
    "api/embeddings": {"keep_alive", "options"},
    "v1/chat/completions": {"_debug_render_only"},
    "v1/completions": {"_debug_render_only"},
}  # fmt: skip
RELOADING = {
    "num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread", "draft_num_predict",
}  # fmt: skip


def test_the_types_are_those_of_the_release_that_is_deployed() -> None:
    """A newer release may have fields that are not judged yet: read its types, then the list."""
    assert RELEASE["version"] == OLLAMA_VERSION


@pytest.mark.parametrize("path", sorted(set(RELEASE["types"]) - {"options"}))
def test_every_field_of_the_release_is_listed(path: str) -> None:
    """... to pass, or as withheld with its reason; nothing of it is refused as unknown."""
    assert list(_missing(ALLOWED[path], RELEASE["types"][path], path)) == []


def _missing(shape: Shape, release: Any, where: str) -> Iterator[str]:
    if shape in (ANY, MODEL) or isinstance(shape, Withheld) or release is None:
        return
    if "$ref" in release:
        release = RELEASE["types"][release["$ref"]]
    inner = shape.of if isinstance(shape, Each) else shape
    if inner == ANY:
        return
    assert isinstance(inner, dict)
    for name, below in release.items():
        if name not in inner:
            yield f"{where}.{name}"
        else:
            yield from _missing(inner[name], below, f"{where}.{name}")


@pytest.mark.parametrize("path", sorted(ALLOWED))
def test_withheld_is_what_reloads_unloads_executes_or_has_no_limit(path: str) -> None:
    shape = ALLOWED[path]
    assert isinstance(shape, dict)
    found = {name for name, value in shape.items() if isinstance(value, Withheld)}
    assert found == WITHHELD.get(path, set()) - {"options"}
    options = shape.get("options", {})
    assert isinstance(options, dict)
    reloading = {name for name, value in options.items() if isinstance(value, Withheld)}
    assert reloading >= RELOADING or "options" not in WITHHELD.get(path, set())


def test_every_model_is_read_for_the_log() -> None:
    for path, shape in ALLOWED.items():
        assert isinstance(shape, dict)
        assert shape["model"] == MODEL, path


def test_lua_of_it_needs_no_escapes() -> None:
    """Names and reasons are written between quotes as they are."""
    texts = re.findall(r'"([^\n]*?)"', as_lua())
    assert len(texts) > 200
    assert [text for text in texts if not re.fullmatch(r"[ !#-\[\]-~]+", text)] == []
