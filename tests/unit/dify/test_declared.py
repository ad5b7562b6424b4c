"""What Dify is told."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from fleet.dify import declared as dify
from tests.alternatives.dify import LEAST
from tests.fleets import EDGE, GPU, fleet_of

BOX = {"private_address": "10.0.0.5", "ollama_listen": "private", **LEAST}


def test_secrets_are_made_once_and_fit_their_forms() -> None:
    fleet = fleet_of({"box": ("gpu dify", BOX)})
    first = dify.SECRETS.of(fleet["box"], fleet)
    assert dify.SECRETS.of(fleet["box"], fleet) == first
    assert len(set(first.values())) == len(dify.SECRETS.secrets)
    for name, secret in dify.SECRETS.secrets.items():
        for _ in range(50):
            assert re.fullmatch(secret.form, secret.make()), name
    assert len(base64.urlsafe_b64decode(first["agent_server_secret_key"] + "=")) == 32


def test_containers_fetch_files_from_each_other() -> None:
    """Dify's plugins would be sent to the address in people's browsers otherwise."""
    fleet = fleet_of({"box": ("gpu dify", {**BOX, "dify_public_url": "https://dify.example"})})
    told = dify.environment(fleet["box"], fleet)
    assert told["INTERNAL_FILES_URL"] == "http://api:5001"
    assert told["FILES_URL"] == "https://dify.example"


@pytest.mark.parametrize(("declared", "told"), [(None, 4096), (6000, 6000), (65536, 8192)])
def test_dify_is_told_no_more_context_than_ollama_holds(declared: int | None, told: int) -> None:
    """Unset, Ollama holds 4096 on a small GPU."""
    data = BOX | ({"ollama_context_length": declared} if declared else {})
    fleet = fleet_of({"box": ("gpu dify", {**data, "ollama_models": ["gpt-oss:20b"]})})
    assert dify.models_of(fleet["box"], fleet)[0].context_size == told


@pytest.mark.parametrize(
    ("key", "dify_models", "name", "size"),
    [
        ({}, {}, "gpt-oss:20b", 8000),
        ({"models": ["gpt-oss:120b"]}, {}, "gpt-oss:120b", 6000),
        ({"models": ["gpt-4o"]}, {"dify_models": [{"name": "gpt-4o", "context_size": 6000}]},
         "gpt-4o", 6000),
    ],
)  # fmt: skip
def test_dify_is_told_of_what_its_key_may_use(
    key: dict[str, Any], dify_models: dict[str, Any], name: str, size: int
) -> None:
    """... by all hosts that have it, the one with the least context among them."""
    hosts = {
        f"gpu{n}": (
            "gpu",
            {**GPU[1], "private_address": f"10.0.0.1{n}", "ollama_models": models,
             "ollama_context_length": context},
        )
        for n, models, context in (
            (1, ["gpt-oss:20b"], 8000), (2, ["gpt-oss:120b"], 6000), (3, ["gpt-oss:120b"], 7000)
        )
    }  # fmt: skip
    edge = {
        "gateway_keys": [{"name": "dify", "overrides": "allow", **key}],
        "gateway_aliases": {"gpt-4o": "gpt-oss:120b"},
    }
    own = {item: value for item, value in BOX.items() if not item.startswith("ollama_")}
    chat = {**own, **dify_models, "dify_ollama": "gateway"}
    fleet = fleet_of({**hosts, "edge": ("gateway", {**EDGE[1], **edge}), "chat": ("dify", chat)})
    [told] = dify.models_of(fleet["chat"], fleet)
    assert (told.name, told.context_size) == (name, size)
