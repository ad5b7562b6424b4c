"""What is counted of requests through the whole gateway, and what becomes of it."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway_metrics import Metrics
from tests.unit.gateway.running import KEYS, Running, running
from tests.unit.gateway.said import DONE, EVENTS, USAGE, WHOLE, native, ollama_completions, packed

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


IMAGE = "iVBORw0KGgo" * 300_000
TURN = {"role": "user", "content": "What is this?"}
SCREEN = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": IMAGE}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": [TURN, {**TURN, "images": [IMAGE, IMAGE]}]}),
        ("/api/generate", {"prompt": "What is this?", "images": [IMAGE]}),
        ("/v1/chat/completions", {"messages": [TURN, {"role": "user", "content": [
            {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": IMAGE}},
            {"type": "input_audio", "input_audio": {"data": IMAGE, "format": "wav"}},
        ]}]}),
        ("/v1/messages", {"messages": [TURN, {"role": "user", "content": [SCREEN, {
            "type": "tool_result", "tool_use_id": "1", "content": [SCREEN],
        }]}]}),
        ("/v1/responses", {"input": [TURN, {"role": "user", "content": [
            {"type": "input_image", "image_url": IMAGE}, {"type": "input_text", "text": "a"},
        ]}]}),
    ],
)  # fmt: skip
def test_the_bytes_of_an_image_are_no_text(gateway: Running, path: str, body: Any) -> None:
    """A million tokens for an answer that told nothing would be more than a key has in a day."""
    gateway.answer = (200, WHOLE, b"{}")
    assert gateway.post(path, {"model": "m", **body, "stream": False})[0] == 200
    gateway.ends()
    entry = gateway.log()[-1]
    assert entry["estimated"]
    assert entry["prompt_tokens"] < 150


def test_what_an_image_took_says_nothing_of_text(gateway: Running) -> None:
    body = {"model": "m", "prompt": "a" * 4000}
    gateway.answer = (200, WHOLE, packed({"done": True, "prompt_eval_count": 1000}))
    assert gateway.post("/api/generate", {**body, "images": []})[0] == 200
    gateway.answer = (200, WHOLE, packed({"done": True, "prompt_eval_count": 9000}))
    assert gateway.post("/api/generate", {**body, "images": [IMAGE]})[0] == 200
    gateway.answer = (200, WHOLE, b"{}")
    assert gateway.post("/api/generate", body)[0] == 200
    gateway.ends()
    assert 900 <= gateway.log()[-1]["prompt_tokens"] <= 1100


def test_a_key_without_tokens_left_is_refused(gateway: Running) -> None:
    gateway.answer = (200, WHOLE, packed({"choices": [], "usage": USAGE}))
    statuses = [gateway.post("/v1/chat/completions", CHAT, "spender")[0] for _ in range(4)]
    assert statuses == [200, 200, 429, 429]


def test_a_model_has_one_row_and_one_series_however_it_is_spelt(gateway: Running) -> None:
    """Spellings are without end: room for counts is not, and without counts no limit holds."""
    gateway.answer = (200, WHOLE, packed({"choices": [], "usage": USAGE}))
    host = "registry.ollama.ai/library"
    spelt = ("gpt-oss:20b", "GPT-Oss:20B", "library/gpt-oss:20b", "gpt-oss")
    for name in (*spelt, *(f"{scheme}://{host}/gpt-oss:20b" for scheme in ("a", "-b", "@SUM"))):
        assert gateway.post("/v1/chat/completions", {**CHAT, "model": name})[0] == 200
    gateway.ends()
    metrics = Metrics()
    for line in (gateway.directory / "gateway.log").read_text().splitlines():
        metrics.count(line)
    series = re.findall(r'llm_gateway_tokens_total\{.*model="(.*?)"', metrics.text())
    [file] = (gateway.directory / "state" / "usage").glob("*.json")
    rows = [row["model"] for row in json.loads(file.read_text())["rows"]]
    assert set(rows) == set(series) == {"gpt-oss:20b"}
