"""Which GPUs a deploy has seen on a host, as it noted them there."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.gpu.paths import GPU_NOTE
from fleet.kit.on_host.outside import FormError, parsed

_LIMIT = 64 * 1024
# A UUID is None until a driver has told it.
_NOTE = {
    "gpus": [
        {
            "address": re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"),
            "uuid?": re.compile(r"GPU-[0-9a-f-]{1,64}"),
        }
    ]
}


@dataclass(frozen=True)
class SeenGpu:
    """A GPU that was on the bus: its PCI address, and its UUID as far as a driver told it."""

    address: str
    uuid: str | None = None

    def __str__(self) -> str:
        """`0000:17:00.0 (GPU-...)`."""
        return f"{self.address} ({self.uuid})" if self.uuid else self.address


@dataclass(frozen=True)
class GpuNote:
    """What a deploy left: the GPUs it saw, None where it noted none; `traces` of their driver.

    `spoilt` is why the note cannot be read, where somebody else wrote into it.
    """

    seen: tuple[SeenGpu, ...] | None = None
    traces: tuple[str, ...] = field(default=())
    spoilt: str = ""


class GpuNoteFact(FactBase[GpuNote]):
    """The note, and those of `traces` that exist: files that only hosts with GPUs get."""

    default = GpuNote

    @override
    def command(self, traces: list[str]) -> StringCommand:
        note = QuoteString(GPU_NOTE)
        return StringCommand(
            "for f in",
            *[QuoteString(path) for path in traces],
            '; do if [ -e "$f" ]; then echo "trace $f"; fi; done;',
            "if [ -e", note, "] || [ -L", note, "]; then echo note;",
            # Nothing that turned into a pipe is waited for.
            f"timeout 15 head -c {_LIMIT + 1}", note, "2>&1; echo; fi || true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> GpuNote:
        traces: list[str] = []
        for place, line in enumerate(output):
            if line == "note":
                return _read("\n".join(output[place + 1 :]), tuple(traces))
            traces.append(line.removeprefix("trace "))
        return GpuNote(None, tuple(traces))


def _read(text: str, traces: tuple[str, ...]) -> GpuNote:
    try:
        if len(text) > _LIMIT:
            raise FormError(f"it has more than {_LIMIT} bytes")
        seen = parsed(text, _NOTE)["gpus"]
    except FormError as error:
        return GpuNote(None, traces, str(error))
    return GpuNote(tuple(SeenGpu(item["address"], item.get("uuid")) for item in seen), traces)
