"""What warms a host before it gets requests again. The gateways' part is in tests/lab."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from pyinfra.api import StringCommand

from fleet.gateway.drain import Gateways
from fleet.models.choice import GIB, Memory
from fleet.models.facts import HostMemory
from tests.fleets import GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")


class Asked(Gateways):
    """Keeps each request as URL and body; the host makes embeddings with what is called so."""

    def __init__(self, *models: str) -> None:
        self.gpu = fleet_of({"gpu1": ("gpu", {**GPU[1], "ollama_models": list(models)})})["gpu1"]
        self.requests: list[tuple[str, dict[str, Any]]] = []

    def _run(self, name: str, command: StringCommand, timeout: int | None = None) -> list[str]:
        *_, body, url = shlex.split(command.get_raw_value())
        self.requests.append((url.rsplit(":", 1)[1], json.loads(body)))
        can = "embedding" if "embed" in json.loads(body)["model"] else "completion"
        return [json.dumps({"capabilities": [can]})]

    def _fact(self, name: str, fact: type, **arguments: Any) -> Any:
        assert fact is HostMemory
        return Memory((), 32 * GIB)


@pytest.mark.parametrize(
    ("declared", "path", "more"),
    [
        ("gpt-oss:20b", "generate", {}),
        ("embed:latest", "embed", {"input": "x"}),
    ],
)
def test_model_is_loaded_by_what_it_can(declared: str, path: str, more: dict[str, Any]) -> None:
    gateways = Asked(declared)
    gateways.warm(gateways.gpu)
    body = {"model": declared, "stream": False}
    assert gateways.requests == [
        ("11434/api/show", body),
        (f"11434/api/{path}", {**body, **more}),
    ]


def test_auto_is_the_hosts_choice() -> None:
    gateways = Asked("auto")
    gateways.warm(gateways.gpu)
    assert {body["model"] for _, body in gateways.requests} == {"gpt-oss:20b"}
