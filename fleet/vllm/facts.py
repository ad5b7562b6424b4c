"""What of vLLM a host has and runs, asked on the host itself."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.on_host.outside import FormError, counted, parsed
from fleet.kit.paths import UNITS
from fleet.vllm.memory import Weights
from fleet.vllm.model import read_config
from fleet.vllm.paths import VENV_NOTE, VLLM_CURRENT, server_unit, watch_timer, watch_unit

_ANSWER = {"choices": [{}], "usage": {"completion_tokens": int}}
_CONFIG_LIMIT = 1 << 20  # bytes
_MIB = 1024**2


def ask_one_token(url: str, model: str, seconds: int) -> StringCommand:
    """A command that prints what the server at `url` answers to a request for one token.

    It fails after so many seconds, and where the answer is an error's.
    """
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1})
    return StringCommand(
        f"curl -fsS --noproxy '*' --max-time {seconds} -H 'Content-Type: application/json' -d",
        QuoteString(body), QuoteString(f"{url}/v1/completions"),
    )  # fmt: skip


class MakesToken(FactBase[bool]):
    """Whether the server at `url` makes one token of `model` at once."""

    @override
    @staticmethod
    def default() -> bool:
        return False

    @override
    def command(self, url: str, model: str) -> StringCommand:
        return StringCommand(ask_one_token(url, model, 20), "2>/dev/null || true")

    @override
    def process(self, output: list[str]) -> bool:
        try:
            return bool(parsed("\n".join(output), _ANSWER)["choices"])
        except FormError:
            return False


@dataclass(frozen=True)
class VllmUnits:
    """What of vLLM's units is on a host: files and links of them, and units that systemd runs."""

    paths: tuple[str, ...] = ()
    running: tuple[str, ...] = ()


class VllmServers(FactBase[VllmUnits]):
    """Every unit of a vLLM server and of its watch, declared or not."""

    default = VllmUnits

    @override
    def command(self) -> StringCommand:
        names = (server_unit("*"), watch_unit("*"), watch_timer("*"))
        return StringCommand(
            "for f in",
            *(f"{folder}/{name}" for folder in (UNITS, f"{UNITS}/*.wants") for name in names),
            '; do if [ -e "$f" ] || [ -L "$f" ]; then echo "path $f"; fi; done;'
            " systemctl list-units --all --plain --no-legend 'vllm@*.service'"
            ' | while read -r unit load active rest; do case "$active" in inactive) ;;'
            ' *) echo "unit $unit";; esac; done',
        )

    @override
    def process(self, output: list[str]) -> VllmUnits:
        found = [line.split(" ", 1) for line in output]
        return VllmUnits(
            tuple(value for kind, value in found if kind == "path"),
            tuple(value for kind, value in found if kind == "unit"),
        )


@dataclass(frozen=True)
class Venv:
    """SHA-256 of the lock that a virtual environment was made of, and where `current` points."""

    lock: str | None = None
    current: str | None = None


class Venvs(FactBase[Venv]):
    """The virtual environment in `directory`, and the one that runs."""

    default = Venv

    @override
    def command(self, directory: str) -> StringCommand:
        return StringCommand(
            'echo "lock=$(cat', QuoteString(f"{directory}/{VENV_NOTE}"),
            '2>/dev/null)"; echo "current=$(readlink', VLLM_CURRENT, '2>/dev/null)"',
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> Venv:
        values = dict(line.split("=", 1) for line in output)
        return Venv(values["lock"] or None, values["current"] or None)


class WeightsThere(FactBase[Weights]):
    """What lies in the `folder` of a server's weights."""

    default = Weights

    @override
    def command(self, folder: str) -> StringCommand:
        config = QuoteString(f"{folder}/config.json")
        return StringCommand(
            "n=0; for f in", StringCommand(QuoteString(folder), "/*.safetensors", _separator=""),
            '; do [ ! -f "$f" ] || n=$((n + $(stat -L -c %s -- "$f"))); done; echo "$n";',
            f"timeout 15 head -c {_CONFIG_LIMIT}", config, "2>/dev/null || true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> Weights:
        size, *config = output or ["0"]
        try:
            return Weights(counted(size) or 0, read_config("\n".join(config)))
        except FormError:
            return Weights(counted(size) or 0)


class GpuSizes(FactBase[dict[str, int]]):
    """UUID to memory in bytes of each NVIDIA GPU that answers; 0 where it has none of its own."""

    default = dict

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            "nvidia-smi --query-gpu=uuid,memory.total --format=csv,noheader,nounits"
            " 2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> dict[str, int]:
        rows = [[word.strip() for word in line.split(",")] for line in output]
        # Without a device it says so in a sentence.
        return {
            row[0]: (counted(row[1]) or 0) * _MIB
            for row in rows
            if len(row) == 2 and row[0].startswith("GPU-")
        }
