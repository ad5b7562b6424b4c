"""What the stand-in refuses of a request, and what it makes of one."""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from .engine import Engine, RefusedError

BUSY = "The engine is currently busy and cannot accept new requests. Please try again later."
NATURAL = 24  # tokens of an answer that ends by itself
CHAT = ("/v1/chat/completions", "/invocations")


class Api:
    """The models that are served, and what their requests are answered with."""

    def __init__(
        self, flags: argparse.Namespace, engine: Engine, length: int, thinks: bool
    ) -> None:
        self.flags, self.engine, self.length, self.thinks = flags, engine, length, thinks
        self.names = flags.served_model_name or [flags.model]
        self.created, self.late = int(time.time()), 0
        self.overflow = os.environ.get("LAB_VLLM_OVERFLOW", "both")  # 503, 200, both

    def models(self) -> dict[str, Any]:
        return {"object": "list", "data": [self._model(name) for name in self.names]}

    def _model(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": self.created,
            "owned_by": "vllm",
            "root": self.flags.model,
            "parent": None,
            "max_model_len": self.length,
            "permission": [{"id": "modelperm-1", "object": "model_permission", "allow_view": True}],
        }

    def judged(self, path: str, asked: dict[str, Any]) -> tuple[int, int, int]:
        """Tokens of the prompt, at most of the answer, and of one that ends by itself."""
        name = asked.get("model")
        if name is not None and name not in self.names:
            aliases = ", ".join(self.names)
            text = f"The model `{name}` does not exist. Valid aliases: {aliases}."
            raise RefusedError(404, text, "NotFoundError", "model")
        can_call = self.flags.enable_auto_tool_choice and self.flags.tool_call_parser
        if path in CHAT and asked.get("tools") and not can_call:
            raise RefusedError(
                400,
                '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser '
                "to be set",
            )
        prompt = tokens_of(asked)
        if prompt >= self.length:
            raise RefusedError(
                400,
                f"This model's maximum context length is {self.length} tokens. However, your "
                f"prompt contains at least {prompt} input tokens.",
                param="input_tokens",
            )
        wanted = next(
            (
                asked[key]
                for key in ("max_completion_tokens", "max_output_tokens", "max_tokens")
                if asked.get(key)
            ),
            None,
        )
        if wanted is not None and wanted > self.length:
            raise RefusedError(
                400,
                f"max_tokens={wanted} cannot be greater than max_model_len={self.length}.",
                param="max_tokens",
            )
        return (
            prompt,
            wanted or self.length - prompt,
            self.length if asked.get("ignore_eos") else NATURAL,
        )

    def tool(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The call of the first tool, where the last message is a user's and names it."""
        last = (asked.get("messages") or [{}])[-1]
        for item in asked.get("tools") or []:
            name = item.get("function", {}).get("name") or item.get("name")
            if last.get("role") == "user" and name and name in json.dumps(last.get("content")):
                return {
                    "id": "chatcmpl-tool-1",
                    "type": "function",
                    "function": {"name": name, "arguments": "{}"},
                }
        return None

    def refuses_late(self, streamed: bool) -> None:
        """Have one too many be told so within a stream that has begun; raises where it is not."""
        self.engine.counts["rejected"] += 1
        self.late += 1
        if streamed and (
            self.overflow == "200" or (self.overflow == "both" and self.late % 2 == 0)
        ):
            return
        raise RefusedError(503, BUSY, "ServiceUnavailableError")


def tokens_of(asked: dict[str, Any]) -> int:
    """So many tokens a prompt has here: its words, and 7."""
    said = [
        asked.get(key)
        for key in ("messages", "prompt", "input", "system", "instructions")
        if asked.get(key)
    ]
    return len(json.dumps(said).split()) + 7
