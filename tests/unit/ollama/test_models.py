"""Models: what may be declared of them, and the names by which they are pulled."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from fleet.declare.fleet import PRODUCT_ROOT
from fleet.ollama.models import ModelDeclaration, pull_name
from tests.fleets import (
    Hosts,
    fleet_of,
)
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "bad model name": (
        pair({"ollama_models": ["gpt-oss:20b", "gpt oss"]}),
        "gpu1",
        ["ollama_models[1]", "gpt oss", "write [host/][namespace/]model[:tag]"],
    ),
    **{
        f"model: {why}": (
            pair({"ollama_models": ["gpt-oss:20b", declaration]}),
            "gpu1",
            ["ollama_models[1]", *parts],
        )
        for why, declaration, parts in (
            ("without a name", {"load": True}, ["'name' is missing; add it"]),
            ("unknown key", {"name": "a", "bas": "b"}, ["unknown key", "did you mean base?"]),
            ("short digest", {"name": "a", "digest": "17052f91a42e"}, ["64 lower-case"]),
            (
                "base and gguf",
                {"name": "a", "base": "b", "gguf": "/srv/x", "sha256": "ab" * 32},
                ["import the file as one model"],
            ),
            (
                "gguf without a checksum",
                {"name": "a", "gguf": "/srv/x.gguf"},
                ["gguf needs sha256", "run sha256sum"],
            ),
            ("checksum without a gguf", {"name": "a", "sha256": "ab" * 32}, ["sha256 is for gguf"]),
            *(
                (
                    f"gguf in {path}",
                    {"name": "a", "gguf": path, "sha256": "ab" * 32},
                    ["is under /home", "the loader's hardened unit cannot see"],
                )
                for path in ("/home/x.gguf", "//home/x.gguf", "/./home//x.gguf")
            ),
            (
                "gguf of no place",
                {"name": "a", "gguf": "x.gguf", "sha256": "ab" * 32},
                ["'x.gguf'", "neither an absolute path on the host nor an http(s) address"],
            ),
            (
                "gguf with a password",
                {"name": "a", "gguf": "http://u:hunter2@x/y", "sha256": "ab" * 32},
                ["holds a user or password"],
            ),
            (
                "gguf that the unit cannot see",
                {"name": "a", "gguf": "/home/x.gguf", "sha256": "ab" * 32},
                ["is under /home", "put the file under /var, /srv, /data or /mnt"],
            ),
            (
                "pinned custom model",
                {"name": "a", "base": "b", "digest": "ab" * 32},
                ["pin the base"],
            ),
            (
                "parameters without a base",
                {"name": "a", "parameters": {"num_ctx": 4096}},
                ["need base", "write base = 'a' and a name of its own"],
            ),
            (
                "unknown parameter",
                {"name": "a", "base": "b", "parameters": {"num_cxt": 4096}},
                ["['parameters']['num_cxt'] = 4096", "did you mean num_ctx?"],
            ),
            (
                "text for a parameter",
                {"name": "a", "base": "b", "parameters": {"num_ctx": "48k"}},
                ["['num_ctx'] = '48k'", "valid integer"],
            ),
            (
                "parameter out of bounds",
                {"name": "a", "base": "b", "parameters": {"top_p": 1.5}},
                ["['top_p'] = 1.5", "less than or equal to 1"],
            ),
            ("its own base", {"name": "a", "base": "a:latest"}, ["is its own base"]),
            ("pinned auto", {"name": "auto", "digest": "ab" * 32}, ["declare the model itself"]),
            ("made auto", {"name": "auto", "base": "b"}, ["auto is chosen, not made"]),
            (
                "keep_alive alone",
                {"name": "a", "keep_alive": "-1"},
                ["keep_alive acts on load only", "add load = True"],
            ),
            (
                "keep_alive in words",
                {"name": "a", "load": True, "keep_alive": "for ever"},
                ["['keep_alive'] = 'for ever'", "not a duration", "-1 is for ever"],
            ),
            ("keep_alive 0", {"name": "a", "load": True, "keep_alive": 0}, ["0 unloads at once"]),
        )
    },
    "model declared twice": (
        pair({"ollama_models": ["embed", {"name": "embed:latest", "load": True}]}),
        "gpu1",
        ["ollama_models: embed:latest is declared twice", "keep one"],
    ),
    "custom model of a custom model": (
        pair({"ollama_models": [{"name": "a", "base": "b"}, {"name": "c", "base": "a"}]}),
        "gpu1",
        ["ollama_models: c: its base a is a custom model itself", "write base = 'b'"],
    ),
    "one file of weights in two contexts": (
        pair(
            {
                "ollama_models": [
                    {"name": "a", "load": True},
                    {"name": "b", "base": "a", "parameters": {"num_ctx": 4096}, "load": True},
                ]
            }
        ),
        "gpu1",
        ["a (num_ctx = as Ollama chooses) and b (num_ctx = 4096) share the weights of a:latest"],
    ),
    "a base and a custom model that load each other anew": (
        pair(
            {
                "ollama_models": [
                    "gpt-oss:20b",
                    {"name": "b", "base": "gpt-oss:20b", "parameters": {"num_ctx": 48000}},
                ]
            }
        ),
        "gpu1",
        ["share the weights of gpt-oss:20b", "write ollama_context_length = 48000", "anew"],
    ),
    "two custom models that load each other anew": (
        pair(
            {
                "ollama_models": [
                    {"name": "b", "base": "a", "parameters": {"num_ctx": 48000}},
                    {"name": "c", "base": "a", "parameters": {"num_ctx": 4096}},
                ]
            }
        ),
        "gpu1",
        ["b (num_ctx = 48000) and c (num_ctx = 4096)", "give them the same num_ctx"],
    ),
    "one file of weights in two ways": (
        pair({"ollama_models": ["a", {"name": "b", "base": "a", "parameters": {"num_batch": 64}}]}),
        "gpu1",
        ["b (num_batch = 64) share the weights of a:latest", "give them the same num_batch"],
    ),
    "two contexts on one of two servers": (
        pair(
            {
                "ollama_models": [
                    "a",
                    {"name": "b", "base": "a", "parameters": {"num_ctx": 8192}},
                ],
                "ollama_context_length": 8192,
                "ollama_instances": [
                    {"name": "x", "port": 11434},
                    {"name": "y", "port": 11435, "context_length": 4096},
                ],
            }
        ),
        "gpu1",
        ["a (num_ctx = 4096) and b (num_ctx = 8192)", "y"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


class TestModels:
    @pytest.mark.parametrize(
        ("model", "registry", "name"),
        [
            ("gpt-oss:20b", None, "gpt-oss:20b"),
            ("embed", None, "embed:latest"),
            ("team/m", None, "team/m:latest"),
            ("gpt-oss:20b", "mirror:5000", "mirror:5000/library/gpt-oss:20b"),
            ("embed", "mirror:5000", "mirror:5000/library/embed:latest"),
            ("team/m:q4", "mirror", "mirror/team/m:q4"),
            ("hf.co/team/m:q4", "mirror:5000", "hf.co/team/m:q4"),
            ("host:5001/team/m", "mirror:5000", "host:5001/team/m:latest"),
        ],
    )
    def test_pull_name(self, model: str, registry: str | None, name: str) -> None:
        assert pull_name(model, registry) == name


@pytest.mark.parametrize(
    ("declared", "stays"),
    [
        ({}, False),
        ({"load": True}, True),
        ({"load": True, "keep_alive": "-1"}, True),
        ({"load": True, "keep_alive": "-5m"}, True),
        ({"load": True, "keep_alive": "30m"}, False),
    ],
)
def test_model_that_is_loaded_stays_unless_it_is_told_how_long(
    declared: dict[str, Any], stays: bool
) -> None:
    assert ModelDeclaration(name="a", **declared).stays_loaded is stays


@pytest.mark.parametrize(
    "settings",
    [
        {"ollama_context_length": 48000},
        # Its base is pulled, and nobody is told of it.
        {"ollama_models": [{"name": "b", "base": "a", "parameters": {"num_ctx": 48000}}]},
        {"ollama_models": ["a", {"name": "b", "base": "a", "parameters": {"temperature": 0.1}}]},
        {"ollama_models": ["a", {"name": "b", "base": "a", "parameters": {"num_thread": 0}}]},
    ],
)
def test_models_that_share_a_process(settings: dict[str, Any]) -> None:
    models = ["a", {"name": "b", "base": "a", "parameters": {"num_ctx": 48000}}]
    assert fleet_of(pair({"ollama_models": models, **settings}))


def test_sample_of_the_manual_is_sound() -> None:
    """It once was a base and a custom model that load each other anew."""
    page = (PRODUCT_ROOT / "docs" / "operating" / "models.md").read_text()
    sample = page.partition("ollama_models = ")[2].partition("```")[0]
    models = ast.literal_eval(sample.replace("<sha256sum of the file>", "ab" * 32))
    assert fleet_of(pair({"ollama_models": models}))
