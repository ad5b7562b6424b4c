"""How the stand-in writes an answer, in each of the APIs that it speaks."""

from __future__ import annotations

import time
from typing import Any

VERSION = "0.32.0"


def usage_of(prompt: int, made: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + made,
        "completion_tokens": made,
        "prompt_tokens_details": None,
    }


class Dialect:
    """How an answer is written; `asked` is the request, `name` the model's first one."""

    def __init__(self, name: str, number: str, asked: dict[str, Any], thinks: bool) -> None:
        self.name, self.asked, self.thinks = name, asked, thinks
        self.id, self.created = number, int(time.time())

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.name}

    def whole(self, text: str, reason: str, usage: dict[str, Any], call: Any) -> dict[str, Any]:
        message = {
            "role": "assistant",
            "content": None if call else text,
            "refusal": None,
            "annotations": None,
            "audio": None,
            "function_call": None,
            "tool_calls": [call] if call else [],
            "reasoning": "thinking" if self.thinks else None,
        }
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": "tool_calls" if call else reason,
            "stop_reason": None,
        }
        return {
            **self.head("chat.completion"),
            "choices": [choice],
            "system_fingerprint": f"vllm-{VERSION}-f8f715d2",
            "usage": usage,
            "prompt_logprobs": None,
        }

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> list[dict[str, Any]]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return [{**self.head("chat.completion.chunk"), "choices": [choice]}]

    def begin(self, prompt: int) -> list[dict[str, Any]]:
        return self._chunk({"role": "assistant", "content": ""}, None)

    def part(self, text: str) -> list[dict[str, Any]]:
        return self._chunk({"content": text}, None)

    def end(self, text: str, reason: str, usage: dict[str, Any], call: Any) -> list[dict[str, Any]]:
        events = []
        if call:
            events += self._chunk({"tool_calls": [{"index": 0, **call}]}, None)
        events += self._chunk({}, "tool_calls" if call else reason)
        if (self.asked.get("stream_options") or {}).get("include_usage"):
            events += [{**self.head("chat.completion.chunk"), "choices": [], "usage": usage}]
        return events

    is_done_told = True  # by [DONE]


class Completions(Dialect):
    """/v1/completions."""

    def whole(self, text: str, reason: str, usage: dict[str, Any], call: Any) -> dict[str, Any]:
        choice = {
            "index": 0,
            "text": text,
            "logprobs": None,
            "finish_reason": reason,
            "stop_reason": None,
        }
        return {**self.head("text_completion"), "choices": [choice], "usage": usage}

    def begin(self, prompt: int) -> list[dict[str, Any]]:
        return []

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> list[dict[str, Any]]:
        choice = {
            "index": 0,
            "text": delta.get("content", ""),
            "logprobs": None,
            "finish_reason": reason,
        }
        return [{**self.head("text_completion"), "choices": [choice], "usage": None}]


class Responses(Dialect):
    """/v1/responses."""

    is_done_told = False

    def _response(
        self, status: str, text: str | None, usage: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.name,
            "output": [] if text is None else [self._item("completed", text)],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "incomplete_details": None,
            "metadata": None,
            "usage": usage
            and {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            },
        }

    def _item(self, status: str, text: str) -> dict[str, Any]:
        content = [] if status == "in_progress" else [self._text(text)]
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _text(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "text": text, "annotations": []}

    def whole(self, text: str, reason: str, usage: dict[str, Any], call: Any) -> dict[str, Any]:
        return self._response("completed", text, usage)

    def begin(self, prompt: int) -> list[dict[str, Any]]:
        return [
            {"type": "response.created", "response": self._response("in_progress", None, None)},
            {
                "type": "response.output_item.added",
                "output_index": 0,
                "item": self._item("in_progress", ""),
            },
            {
                "type": "response.content_part.added",
                "item_id": "msg_1",
                "output_index": 0,
                "content_index": 0,
                "part": self._text(""),
            },
        ]

    def part(self, text: str) -> list[dict[str, Any]]:
        return [
            {
                "type": "response.output_text.delta",
                "item_id": "msg_1",
                "output_index": 0,
                "content_index": 0,
                "delta": text,
                "logprobs": [],
            }
        ]

    def end(self, text: str, reason: str, usage: dict[str, Any], call: Any) -> list[dict[str, Any]]:
        return [
            {
                "type": "response.output_item.done",
                "output_index": 0,
                "item": self._item("completed", text),
            },
            {"type": "response.completed", "response": self._response("completed", text, usage)},
        ]


class Messages(Dialect):
    """/v1/messages."""

    is_done_told = False

    def _message(
        self, content: list[Any], reason: str | None, usage: dict[str, Any]
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self.name,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "output_tokens": usage["completion_tokens"],
            },
        }

    def whole(self, text: str, reason: str, usage: dict[str, Any], call: Any) -> dict[str, Any]:
        return self._message([{"type": "text", "text": text}], self._reason(reason), usage)

    def _reason(self, reason: str) -> str:
        return {"length": "max_tokens", "stop": "end_turn"}.get(reason, reason)

    def begin(self, prompt: int) -> list[dict[str, Any]]:
        return [
            {"type": "message_start", "message": self._message([], None, usage_of(prompt, 0))},
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            },
        ]

    def part(self, text: str) -> list[dict[str, Any]]:
        return [
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
        ]

    def end(self, text: str, reason: str, usage: dict[str, Any], call: Any) -> list[dict[str, Any]]:
        told = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
        return [
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": self._reason(reason)},
                "usage": told,
            },
            {"type": "message_stop"},
        ]
