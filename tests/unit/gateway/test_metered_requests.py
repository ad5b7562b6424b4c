"""Metering in the whole gateway: what servers are asked, what clients get, and what is kept."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.running import KEYS, Running, running
from tests.unit.gateway.said import DONE, EVENTS, USAGE, WHOLE, native, packed
from tests.unit.gateway.test_gateway_lines import ollama_completions

CHAT = {"model": "gpt-oss:20b", "messages": [{"role": "user", "content": "a"}]}
LONG = {"role": "user", "content": "b" * 300_000}  # nginx has it in a file


@pytest.fixture
def gateway() -> Iterator[Running]:
    keys = [*KEYS, {"name": "spender", "tokens": "28/mo"}]
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), gateway_keys=keys) as gateway,
    ):
        yield gateway


def inference(gateway: Running) -> list[Any]:
    """The bodies that the servers have got, without those that ask how they are."""
    return [json.loads(body) for path, body in gateway.seen if path.startswith("/v1/") and body]


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"stream_options": None},
        {"stream_options": {}},
        {"stream_options": {"include_usage": False}},
        {"stream_options": {"include_usage": None}},
        {"stream_options": {"include_obfuscation": False}},
        {"stream_options": {"include_obfuscation": False, "include_usage": False}},
    ],
)
@pytest.mark.parametrize("more", [[], [LONG]], ids=["short", "long"])
def test_a_stream_is_asked_what_it_took_and_its_client_does_not_see_it(
    gateway: Running, said: dict[str, Any], more: list[Any]
) -> None:
    gateway.answer = (200, EVENTS, ollama_completions(asked=True))
    body = {**CHAT, "messages": [*CHAT["messages"], *more], **said, "stream": True}
    status, _, got = gateway.post("/v1/chat/completions", body)
    assert (status, got) == (200, ollama_completions(asked=False))
    (sent,) = inference(gateway)
    assert sent["stream_options"].pop("include_usage") is True
    options = {k: v for k, v in (said.get("stream_options") or {}).items() if k != "include_usage"}
    assert sent == {**body, "stream_options": options}
    gateway.ends()
    (entry,) = [item for item in gateway.log() if item["path"] == "/v1/chat/completions"]
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["estimated"]) == (
        11,
        3,
        False,
    )


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/chat/completions", {"stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/chat/completions", {"stream": False}),
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", {"stream": None}),
    ],
)
def test_who_asks_or_does_not_stream_is_not_meddled_with(
    gateway: Running, path: str, more: dict[str, Any]
) -> None:
    gateway.answer = (200, EVENTS, ollama_completions(asked=True))
    assert gateway.post(path, {**CHAT, **more})[2] == ollama_completions(asked=True)
    assert inference(gateway) == [{**CHAT, **more}]


def test_it_is_in_the_log_and_kept(gateway: Running) -> None:
    gateway.answer = (200, "application/x-ndjson", native({"message": {"content": "a"}}, DONE))
    gateway.post("/api/chat", CHAT)
    gateway.answer = (200, WHOLE, packed({"choices": [], "usage": USAGE}))
    gateway.post("/v1/chat/completions", CHAT, "tuner")
    gateway.answer = (404, WHOLE, b'{"error":"no"}')
    gateway.post("/api/chat", CHAT)
    gateway.ends()
    native_, openai, refused = [item for item in gateway.log() if item["method"] == "POST"]
    told = {"prompt_tokens": 11, "cached_tokens": 4, "completion_tokens": 3, "estimated": False}
    assert native_.items() >= {**told, "tokens_per_second": 2.0, "model": "gpt-oss:20b"}.items()
    assert openai.items() >= {**told, "first_token": None}.items()
    assert native_["first_token"] >= 0
    assert native_["host"] in {"gpu1", "gpu2", "gpu3"}
    assert refused.items() >= dict.fromkeys(told, None).items()
    assert refused["host"] == ""
    folder = gateway.directory / "state" / "usage"
    kept = json.loads((folder / f"{datetime.now(UTC):%Y-%m-%d}.json").read_text())
    rows = {(row["key"], row["model"], row["requests"], row["prompt"]) for row in kept["rows"]}
    assert rows == {("plain", "gpt-oss:20b", 1, 11), ("tuner", "gpt-oss:20b", 1, 11)}


def test_a_key_without_tokens_left_is_refused(gateway: Running) -> None:
    gateway.answer = (200, WHOLE, packed({"choices": [], "usage": USAGE}))
    statuses = [gateway.post("/v1/chat/completions", CHAT, "spender")[0] for _ in range(4)]
    assert statuses == [200, 200, 429, 429]
