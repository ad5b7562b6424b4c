"""A host's models compared with what is declared, and the memory that it has for them."""

from __future__ import annotations

import json

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.host_programs import program_files
from fleet.kit.loaders import LoaderCheck, LoaderState
from fleet.kit.on_host.outside import FormError, counted, parsed
from fleet.models.choice import Memory
from fleet.models.on_host.ollama_protocol import SHOWN

ModelsCheck = LoaderCheck


class ModelsState(LoaderState):
    """A host's models compared with what is declared."""

    program = tuple(program_files("models", "model_loader"))


class ModelCapabilities(FactBase[tuple[str, ...]]):
    """What the server at `url` says that `model` can do; empty when it does not say."""

    default = tuple

    @override
    def command(self, url: str, model: str) -> StringCommand:
        return StringCommand(
            "curl -fsS --noproxy '*' --max-time 60 -d", QuoteString(json.dumps({"model": model})),
            QuoteString(f"{url}/api/show"), "|| true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        try:
            shown = parsed("\n".join(output), SHOWN, "/api/show")
        except FormError:
            # Something else has the port; a chat with it will say so.
            return ()
        return tuple(shown.get("capabilities") or ())


class HostMemory(FactBase[Memory]):
    """Memory of the NVIDIA GPUs, as nvidia-smi tells it, and of the host.

    A GPU that shares the host's memory has none of its own to tell (`[N/A]`), and counts as none.
    """

    @override
    @staticmethod
    def default() -> Memory:
        return Memory((), 0)

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            'echo "ram $(sed -n "s/^MemTotal: *\\([0-9]*\\) kB/\\1/p" /proc/meminfo)";'
            "for d in /sys/bus/pci/devices/*; do"
            ' case "$(cat "$d/vendor" "$d/class" 2>/dev/null | tr "\\n" " ")" in'
            ' "0x10de 0x0300"*|"0x10de 0x0302"*) echo bus;; esac; done;'
            "nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits 2>/dev/null"
            ' | sed "s/^/gpu /"'
        )

    @override
    def process(self, output: list[str]) -> Memory:
        lines = [line.split(" ", 1) for line in output]
        told = [rest for kind, *others in lines if kind == "gpu" for rest in others]
        gpus = tuple(size * 1024**2 for rest in told if (size := counted(rest)) is not None)
        told_ram = [rest for kind, *others in lines if kind == "ram" for rest in others]
        ram = (counted(told_ram[0]) or 0) * 1024 if told_ram else 0
        return Memory(gpus, ram, has_silent_gpu=["bus"] in lines and not told)
