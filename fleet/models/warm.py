"""A real chat with an Ollama server: its model is loaded then, and it does answer."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand

from fleet.kit.commands import Commands
from fleet.kit.durations import seconds
from fleet.models.choice import Memory, choose, resolve
from fleet.models.facts import ModelCapabilities
from fleet.models.on_host.ollama_protocol import load_request
from fleet.ollama.models import is_auto
from fleet.ollama.servers import Instance


def first_model(item: Instance, memory: Memory) -> str | None:
    """The first model of a server whose host has `memory`; None while `auto` is open."""
    name = item.settings.model_names[0]
    return resolve(name, choose(memory) if is_auto(name) else None)


def served_by(item: Instance, models: Iterable[str]) -> list[str]:
    """Those of `models`, a host's by their full names, that the server `item` is for."""
    if item.name is None:
        return list(models)
    # `auto`, which has other names on the host, is for a host's only server.
    own = {model.full_name for model in item.settings.models}
    return [name for name in models if name in own]


def converse(item: Instance, model: str) -> Commands:
    """Have `model` answer one token in the server `item`, or make an embedding.

    Asked on its host, within twice the time that Ollama itself gives a load.
    """
    can: tuple[str, ...] = host.get_fact(ModelCapabilities, url=item.url, model=model)
    path, body = load_request(model, {"capabilities": can})
    if path == "/api/generate":
        question = [{"role": "user", "content": "Hello"}]
        path, body = (
            "/api/chat",
            {
                "model": model,
                "messages": question,
                "options": {"num_predict": 1},
            },
        )
    limit = round(seconds(item.settings.load_timeout)) * 2
    yield StringCommand(
        f"curl -fsS -o /dev/null --noproxy '*' --max-time {limit} -d",
        QuoteString(json.dumps({**body, "stream": False})),
        QuoteString(f"{item.url}{path}"),
        "|| { printf '%s\\n'",
        QuoteString(f"{item.unit} does not answer {item.url}{path} with {model}"),
        ">&2; exit 1; }",
    )
