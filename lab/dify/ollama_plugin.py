"""The Ollama plugin's code: the one place that talks to a model.

``requests`` as in the real one, so that its words for what fails, and its use of the environment's
proxies, are the real ones.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from . import vocabulary

TIMEOUT = (10, 300)
_RULES = ("temperature", "top_p", "top_k", "num_predict", "num_ctx", "num_gpu", "seed",
          "repeat_penalty", "frequency_penalty", "presence_penalty")  # fmt: skip


class PluginFailureError(Exception):
    """An error of the plugin, with the class that it has in the plugin's SDK."""

    def __init__(self, kind: str, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.kind = kind


def validate(model: str, credentials: dict[str, str]) -> None:
    """Ask the model for a few tokens.

    Raises:
        PluginFailureError: it did not answer.
    """
    body = {
        "model": model,
        "stream": False,
        "options": {"num_predict": 5},
        "messages": [{"role": "user", "content": "ping"}],
    }
    try:
        answer = _post(credentials, body)
        if answer.status_code != 200:
            raise RuntimeError(
                f"API request failed with status code {answer.status_code}: {answer.text}"
            )
        answer.json()
    except (requests.RequestException, RuntimeError) as error:
        text = f"An error occurred during credentials validation: {error}"
        raise PluginFailureError("CredentialsValidateFailedError", text) from error


def schema(model: str, credentials: dict[str, str]) -> dict[str, Any]:
    """What the model can do, as far as the credentials say."""
    features = ["structured-output"]
    if credentials.get("function_call_support") == "true":
        features = ["tool-call", "multi-tool-call", "stream-tool-call", *features]
    if credentials.get("vision_support") == "true":
        features.append("vision")
    return {
        "model": model,
        "label": {"en_US": model},
        "model_type": "llm",
        "features": features,
        "fetch_from": "customizable-model",
        "model_properties": {
            "mode": credentials.get("mode", "chat"),
            "context_size": int(credentials.get("context_size", "4096")),
        },
    }


def invoke(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Chunks of an answer, the last one with the usage.

    Raises:
        PluginFailureError: in place of the next chunk.
    """
    parameters = dict(data.get("model_parameters") or {})
    body: dict[str, Any] = {
        "model": data["model"],
        "stream": bool(data.get("stream", True)),
        "options": {name: parameters[name] for name in _RULES if name in parameters},
        "messages": data["prompt_messages"],
    }
    if parameters.get("think_level"):
        body["think"] = parameters["think_level"]
    try:
        answer = _post(data["credentials"], body, stream=body["stream"])
        if answer.status_code != 200:
            text = f"API request failed with status code {answer.status_code}: {answer.text}"
            raise PluginFailureError("InvokeError", f"[models] Error: {text}")
        yield from _chunks(answer)
    except requests.RequestException as error:
        text = f"[models] Server Unavailable Error, {error}"
        raise PluginFailureError("InvokeServerUnavailableError", text) from error
    if body["stream"]:
        _load_tokenizer()


def _chunks(answer: requests.Response) -> Iterator[dict[str, Any]]:
    thinking = False
    for line in answer.iter_lines():
        if not line:
            continue
        item = json.loads(line)
        if "error" in item:
            raise PluginFailureError("InvokeError", f"[models] Error: {item['error']}")
        message = item.get("message", {})
        text = ""
        if message.get("thinking"):
            text += ("" if thinking else "<think>\n") + message["thinking"]
            thinking = True
        if thinking and message.get("content"):
            text += "\n</think>"
            thinking = False
        text += message.get("content", "")
        chunk: dict[str, Any] = {"text": text}
        if item.get("done"):
            chunk["usage"] = _usage(item)
        yield chunk


def _usage(item: dict[str, Any]) -> dict[str, Any]:
    asked, answered = item.get("prompt_eval_count", 0), item.get("eval_count", 0)
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "total_price": "0",
        "currency": "USD",
        "latency": item.get("total_duration", 0) / 1e9,
    }


def _post(
    credentials: dict[str, str], body: dict[str, Any], *, stream: bool = False
) -> requests.Response:
    headers = {"Content-Type": "application/json"}
    if credentials.get("api_key"):
        headers["Authorization"] = f"Bearer {credentials['api_key']}"
    url = credentials["base_url"].rstrip("/") + "/api/chat"
    return requests.post(url, json=body, headers=headers, timeout=TIMEOUT, stream=stream)


def _load_tokenizer() -> None:
    """Fail as tiktoken does without its cache: a request to a place that is not to be had."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", "")
    if folder and (Path(folder) / vocabulary.NAME).exists():
        return
    host, path = vocabulary.URL.removeprefix("https://").split("/", 1)
    raise PluginFailureError(
        "InvokeConnectionError",
        f"[models] Connection Error, HTTPSConnectionPool(host='{host}', port=443): Max retries "
        f"exceeded with url: /{path}",
    )
