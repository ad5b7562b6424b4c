"""The list of what may pass, beside the request types of the release that is deployed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic.types as anthropic_types
import ollama._types as ollama_types
import openai.types as openai_types
import openai.types.chat as openai_chat
import pytest
from anthropic.types import beta
from anthropic.types import message_create_params as message_params
from anthropic.types.beta import message_create_params as beta_params
from openai.types import completion_create_params as completion_params
from openai.types import shared_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as response_params

from fleet.gateway.fields import ALLOWED, MODEL, Each, Fields, Shape, Withheld, as_lua
from fleet.pins import OLLAMA_VERSION

RELEASE = json.loads((Path(__file__).parent / "ollama_requests.json").read_text())
# What an inference key may not say, in all: a field that is added to it is added here too.
WITHHELD = {
    "api/chat": {"keep_alive", "shift", "_debug_render_only", "options"},
    "api/generate": {
        "keep_alive", "shift", "_debug_render_only", "options", "template", "width", "height",
        "steps",
    },
    "api/show": {"system", "template", "options"},
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
    if isinstance(shape, (str, Withheld)) or release is None:
        return
    if "$ref" in release:
        release = RELEASE["types"][release["$ref"]]
    inner = _inner(shape)
    for name, below in release.items():
        if name not in inner:
            yield f"{where}.{name}"
        else:
            yield from _missing(inner[name], below, f"{where}.{name}")


def _inner(shape: Shape) -> dict[str, Shape]:
    """The fields of an object, or of each element of a list."""
    shape = shape.of if isinstance(shape, Each) else shape
    shape = shape.fields if isinstance(shape, Fields) else shape
    assert isinstance(shape, dict)
    return shape


@pytest.mark.parametrize("path", sorted(ALLOWED))
def test_withheld_is_what_reloads_unloads_executes_or_has_no_limit(path: str) -> None:
    shape = ALLOWED[path]
    assert isinstance(shape, dict)
    found = {name for name, value in shape.items() if isinstance(value, Withheld)}
    options = shape.get("options", {})
    if isinstance(options, dict):
        reloading = {name for name, value in options.items() if isinstance(value, Withheld)}
        found |= {"options"} if reloading else set()
        assert reloading >= RELOADING or not reloading
    assert found == WITHHELD.get(path, set())


DOCUMENTED = {
    "api/chat": [ollama_types.ChatRequest],
    "api/chat options": [ollama_types.Options],
    "api/chat messages": [ollama_types.Message],
    "api/generate": [ollama_types.GenerateRequest],
    "api/embed": [ollama_types.EmbedRequest],
    "api/show": [ollama_types.ShowRequest],
    "api/embeddings": [ollama_types.EmbeddingsRequest],
    "v1/chat/completions": [
        chat_params.CompletionCreateParamsNonStreaming,
        chat_params.CompletionCreateParamsStreaming,
    ],
    "v1/chat/completions messages": [
        openai_chat.ChatCompletionAssistantMessageParam,
        openai_chat.ChatCompletionDeveloperMessageParam,
        openai_chat.ChatCompletionFunctionMessageParam,
        openai_chat.ChatCompletionSystemMessageParam,
        openai_chat.ChatCompletionToolMessageParam,
        openai_chat.ChatCompletionUserMessageParam,
    ],
    "v1/chat/completions stream_options": [openai_chat.ChatCompletionStreamOptionsParam],
    "v1/completions": [completion_params.CompletionCreateParamsStreaming],
    "v1/embeddings": [openai_types.EmbeddingCreateParams],
    "v1/responses": [response_params.ResponseCreateParamsStreaming],
    "v1/responses reasoning": [shared_params.Reasoning],
    "v1/messages": [
        message_params.MessageCreateParamsStreaming,
        beta_params.MessageCreateParamsStreaming,
    ],
    "v1/messages/count_tokens": [
        anthropic_types.MessageCountTokensParams,
        beta.MessageCountTokensParams,
    ],
}
# Of the SDKs' parameters, those that travel as headers.
HEADERS = {"betas"}


@pytest.mark.parametrize("place", DOCUMENTED)
def test_what_the_public_clients_document_is_listed(place: str) -> None:
    """Each parameter of the SDKs passes, or is withheld with its reason."""
    path, *inner = place.split()
    shape = _inner(ALLOWED[path])
    for name in inner:
        shape = _inner(shape[name])
    documented = {name for kind in DOCUMENTED[place] for name in _names(kind)}
    assert documented
    assert documented - HEADERS - set(shape) == set()


def _names(kind: Any) -> set[str]:
    """The fields of a pydantic model, or the keys of a typed dictionary."""
    if hasattr(kind, "model_fields"):
        return set(kind.model_fields)
    return {*kind.__required_keys__, *kind.__optional_keys__}


def test_every_model_is_read_for_the_log() -> None:
    for path, shape in ALLOWED.items():
        assert isinstance(shape, dict)
        assert shape["model"] == MODEL, path


def test_lua_of_it_needs_no_escapes() -> None:
    """Names and reasons are written between quotes as they are."""
    texts = re.findall(r'"([^\n]*?)"', as_lua())
    assert len(texts) > 200
    assert [text for text in texts if not re.fullmatch(r"[ !#-\[\]-~]+", text)] == []
