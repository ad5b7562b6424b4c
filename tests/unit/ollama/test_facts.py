"""What is asked of Ollama and its releases."""

from __future__ import annotations

import json

import pytest

from fleet.ollama.facts import OllamaModels, OllamaReleases, Release
from tests.unit.facts import ask


class TestOllama:
    def test_models(self) -> None:
        answer = {"models": [{"name": "gpt-oss:20b", "size": 13}, {"name": "b:latest", "size": 1}]}
        models = OllamaModels().process(json.dumps(answer).splitlines())
        assert {name: model["size"] for name, model in models.items()} == {
            "gpt-oss:20b": 13,
            "b:latest": 1,
        }

    def test_no_models(self) -> None:
        assert OllamaModels().process(['{"models":[]}']) == {}

    def test_server_that_does_not_answer(self) -> None:
        """A host where Ollama is still to be installed has no models, and that is no error."""
        assert ask(OllamaModels(), url="http://127.0.0.1:9") == {}

    @pytest.mark.parametrize(
        ("lines", "release"),
        [
            (["sha256=", "current="], Release()),
            (
                [f"sha256={'a' * 64}", "current=/opt/ollama/0.32.7"],
                Release("a" * 64, "/opt/ollama/0.32.7"),
            ),
        ],
    )
    def test_releases(self, lines: list[str], release: Release) -> None:
        assert OllamaReleases().process(lines) == release

    def test_releases_of_a_bare_host(self) -> None:
        assert ask(OllamaReleases(), version="0.0.0-none").sha256 is None
