"""What Ollama on a host has and runs, asked on the host itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.on_host.outside import FormError, parsed
from fleet.kit.paths import UNITS
from fleet.ollama.paths import LOADER_UNIT, LOADER_UNIT_FILE, OLLAMA_CURRENT, OLLAMA_ROOT

_TAGS = {"models?": [{"name": str, "size": int, "digest?": str}]}


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
            tags = parsed("\n".join(output), _TAGS, "/api/tags")
            return {model["name"]: model for model in tags.get("models") or []}
        except FormError:
            # Something else has the port; starting Ollama there will say so.
            return {}


@dataclass(frozen=True)
class Servers:
    """What of Ollama's units is on a host: files and links of them, and units that systemd runs."""

    paths: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


class OllamaServers(FactBase[Servers]):
    """Every unit of an Ollama server, declared or not, and what starts one."""

    default = Servers

    @override
    def command(self) -> StringCommand:
        names = ("ollama.service", "ollama@*.service", LOADER_UNIT)
        return StringCommand(
            "for f in",
            *(f"{folder}/{name}" for folder in (UNITS, f"{UNITS}/*.wants") for name in names),
            '; do if [ -e "$f" ] || [ -L "$f" ]; then echo "path $f"; fi; done;'
            " systemctl list-units --all --plain --no-legend ollama.service 'ollama@*.service'"
            ' | while read -r unit load active rest; do case "$active" in inactive) ;;'
            ' *) echo "unit $unit";; esac; done',
        )

    @override
    def process(self, output: list[str]) -> Servers:
        found = [line.split(" ", 1) for line in output]
        return Servers(
            tuple(value for kind, value in found if kind == "path" and value != LOADER_UNIT_FILE),
            tuple(value for kind, value in found if kind == "unit"),
        )


@dataclass(frozen=True)
class Release:
    """SHA-256 of the tarball that a release was unpacked from, and where `current` points."""

    sha256: str | None = None
    current: str | None = None


class OllamaReleases(FactBase[Release]):
    """The release `version` on the host, and the directory of the one that runs."""

    default = Release

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
    def process(self, output: list[str]) -> Release:
        values = dict(line.split("=", 1) for line in output)
        return Release(values["sha256"] or None, values["current"] or None)
