"""What servers say, as they write it, in the tests of metering."""

from __future__ import annotations

import json
from typing import Any

EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
WHOLE = "application/json"

# A conversation about usage: what a model writes, and what it hands to a tool.
FAKE = {
    "usage": {"prompt_tokens": 666, "completion_tokens": 666, "total_tokens": 1332},
    "eval_count": 666,
}
TEXT = 'It said "usage":{"prompt_tokens":666} and \\"eval_count\\": 666}, "usage": {'


DONE = {
    "model": "tiny", "done": True, "done_reason": "stop", "context": [1, 2, 3],
    "total_duration": 9, "prompt_eval_count": 11, "prompt_eval_cached_count": 4, "eval_count": 3,
    "eval_duration": 1500000000,
}  # fmt: skip
USAGE = {
    "prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
}  # fmt: skip
TOOL = [{"function": {"name": "f", "arguments": json.dumps(FAKE)}}]

ASKING = {"asks": "1", "judged": json.dumps({"stream": True, "places": {"open": 1}})}


def packed(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def events(*values: Any, end: bytes = b"\n\n", done: bool = False) -> bytes:
    text = b"".join(b"data: " + packed(value) + end for value in values)
    return text + (b"data: [DONE]" + end if done else b"")


def named(*values: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: %s\ndata: %s\n\n" % (value["type"].encode(), packed(value)) for value in values
    )


def native(*values: Any) -> bytes:
    return b"".join(packed(value) + b"\n" for value in values)


def counted(entry: dict[str, Any]) -> tuple[Any, ...]:
    return (
        entry["prompt_tokens"], entry["cached_tokens"], entry["completion_tokens"],
        entry["estimated"],
    )  # fmt: skip


def ollama_completions(asked: bool) -> bytes:
    """A stream of Ollama's, with `include_usage` and without."""
    zero = (
        {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}} if asked else {}
    )
    head = {"id": "c-1", "object": "text_completion"}
    return events(
        *[{**head, "choices": [{"text": TEXT, "finish_reason": None}], "model": "t", **zero}] * 3,
        {**head, "choices": [{"text": "", "finish_reason": "stop"}], "model": "tiny", **zero},
        *([{**head, "choices": [], "usage": USAGE}] if asked else []),
        done=True,
    )  # fmt: skip
