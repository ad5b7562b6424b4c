"""What Ollama on a host has and runs, asked on the host itself."""

from __future__ import annotations

import json
from typing import Any

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.paths import OLLAMA_CURRENT, OLLAMA_ROOT


class OllamaModels(FactBase[dict[str, dict[str, Any]]]):
    """Model name to its entry in `/api/tags`; empty when no Ollama answers at `url`."""

    default = dict

    @override
    def command(self, url: str) -> StringCommand:
        return StringCommand(
            "curl -fsS --noproxy '*' --max-time 20", QuoteString(f"{url}/api/tags"), "|| true"
        )

    @override
    def process(self, output: list[str]) -> dict[str, dict[str, Any]]:
        try:
            return {model["name"]: model for model in json.loads("\n".join(output))["models"]}
        except (ValueError, KeyError, TypeError):
            # Something else has the port; starting Ollama there will say so.
            return {}


class OllamaReleases(FactBase[dict[str, str]]):
    """`sha256`: the tarball that `version` was unpacked from; `current`: where the link points."""

    default = dict

    @override
    def command(self, version: str) -> StringCommand:
        return StringCommand(
            'echo "sha256=$(cat',
            QuoteString(f"{OLLAMA_ROOT}/{version}/.sha256"),
            '2>/dev/null)"; echo "current=$(readlink',
            OLLAMA_CURRENT,
            '2>/dev/null)"',
        )

    @override
    def process(self, output: list[str]) -> dict[str, str]:
        return dict(line.split("=", 1) for line in output)
