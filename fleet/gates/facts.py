"""What a host tells of its GPUs' memory, of the models that it is to load, and where they are."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.declare.types import is_http
from fleet.gates.gguf import HEAD
from fleet.gates.placement import Loaded, Placement, Surroundings
from fleet.kit.on_host.outside import FormError, counted, parsed
from fleet.kit.on_host.registry import MANIFEST, MANIFEST_LIMIT, MANIFEST_TYPE
from fleet.models.on_host.ollama_protocol import ANSWER_LIMIT, RUNNING

_MIB = 1024**2
# For a registry; four seconds to be reached, fifteen for the whole answer.
_CURL = "curl -fsSL --connect-timeout 4 --max-time 15"
# For a file: nothing that turned into a pipe is waited for.
_HEAD = "timeout 15 head -c"
_IN_THE_STORE, _IN_THE_REGISTRY = "disk", "registry"
_FOUND = "'msg=\"inference compute\"'"
_ABOUT_GPUS = "'ggml_cuda|CUDA error|NVIDIA driver too old|GPU discovery|to GPU$'"


@dataclass(frozen=True)
class GpuMemory:
    """A GPU as nvidia-smi tells of it: place in its list, UUID, and memory in bytes.

    `total` is 0 for one that shares the host's memory and has none of its own.
    """

    index: int
    uuid: str
    total: int


class GpuMemories(FactBase[tuple[GpuMemory, ...]]):
    """The NVIDIA GPUs that answer; none without a working driver."""

    default = tuple

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            "nvidia-smi --query-gpu=index,uuid,memory.total --format=csv,noheader,nounits"
            " 2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> tuple[GpuMemory, ...]:
        rows = [[word.strip() for word in line.split(",")] for line in output]
        # Without a device it says so in a sentence.
        return tuple(
            GpuMemory(index, row[1], (counted(row[2]) or 0) * _MIB)
            for row in rows
            if len(row) == 3 and (index := counted(row[0])) is not None
        )


@dataclass(frozen=True)
class ManifestAnswer:
    """A model's manifest, or why there is none."""

    manifest: dict[str, Any] | None
    reason: str = ""


class ModelManifest(FactBase[ManifestAnswer]):
    """The manifest at `path` on the host, else the registry's at `url`, unless that is None.

    With `digest`, the SHA-256 that it must have, another one on the host does not count.
    """

    @override
    @staticmethod
    def default() -> ManifestAnswer:
        return ManifestAnswer(None, "the host did not answer")

    @override
    def command(
        self, path: str, url: str | None, digest: str | None, environment: Mapping[str, str]
    ) -> StringCommand:
        checked = StringCommand(
            "&& echo", QuoteString(f"{digest}  {path}"), "| timeout 15 sha256sum -c --status"
        )
        fetch = StringCommand("echo it is not there yet")
        if url is not None:
            fetch = StringCommand(
                *_exports(environment), f"{_CURL} -H",
                QuoteString(f"Accept: {MANIFEST_TYPE}"), QuoteString(url),
            )  # fmt: skip
        limit = MANIFEST_LIMIT + 1
        return StringCommand(
            "if [ -f", QuoteString(path), "] && [ -r", QuoteString(path), "]",
            checked if digest else "", f"; then echo {_IN_THE_STORE}; {_HEAD} {limit}",
            QuoteString(path), f"; else echo {_IN_THE_REGISTRY}; {{", fetch, f"2>&1; }}"
            f" | head -c {limit}; fi || true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> ManifestAnswer:
        place, text = (output or [_IN_THE_REGISTRY])[0], "\n".join(output[1:])
        try:
            if len(text) > MANIFEST_LIMIT:
                raise FormError(f"it has more than {MANIFEST_LIMIT} bytes")
            return ManifestAnswer(parsed(text, MANIFEST))
        except FormError as error:
            # What lies on a host may be a link to what is nobody's business.
            said = _shown(text) if place == _IN_THE_REGISTRY else ""
            return ManifestAnswer(None, f"no manifest: {said or error}")


class FileHead(FactBase[bytes]):
    """The beginning of the file at `path` on the host, else of what is at `url`; may be empty.

    One of both may be None.
    """

    default = bytes

    @override
    def command(
        self, path: str | None, url: str | None, environment: Mapping[str, str]
    ) -> StringCommand:
        read = StringCommand("true")
        if url is not None:
            get = f"{_CURL} -r 0-{HEAD - 1}"
            read = StringCommand(*_exports(environment), get, QuoteString(url))
        if path is not None:
            local = StringCommand(f"{_HEAD} {HEAD}", QuoteString(path))
            read = StringCommand(
                "if [ -f", QuoteString(path), "]; then", local, "; else", read, "; fi"
            )
        # A server may ignore the range.
        return StringCommand("{", read, f"; }} 2>/dev/null | head -c {HEAD} | base64 -w 0; echo")

    @override
    def process(self, output: list[str]) -> bytes:
        try:
            return base64.b64decode("".join(output))
        except ValueError:  # not even text of ASCII
            return b""


class FileSize(FactBase[int]):
    """Bytes of the file at `place`, a path on the host or an http(s) address; 0 when unknown."""

    default = int

    @override
    def command(self, place: str, environment: Mapping[str, str]) -> StringCommand:
        if not is_http(place):
            return StringCommand("stat -L -c %s --", QuoteString(place), "2>/dev/null || true")
        # An error has a length too: only what succeeded counts.
        return StringCommand(
            "head=$(", *_exports(environment), f"{_CURL} -I",
            QuoteString(place), "2>/dev/null) && printf '%s\\n' \"$head\" | tr -d '\\r'"
            " | sed -n 's/^[Cc]ontent-[Ll]ength: *//p' | tail -n 1 || true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> int:
        return counted("".join(output)) or 0


class PlacementState(FactBase[Placement]):
    """What the Ollama at `url` has loaded, and what `unit` said of GPUs since it started."""

    @override
    @staticmethod
    def default() -> Placement:
        return Placement({}, answers=False)

    @override
    def command(self, url: str, unit: str) -> StringCommand:
        name = QuoteString(unit)
        return StringCommand(
            "curl -fsS --noproxy '*' --max-time 20", QuoteString(f"{url}/api/ps"),
            f"2>/dev/null | head -c {ANSWER_LIMIT}; echo;",
            "id=$(systemctl show --value -p InvocationID --", name,
            '); said() { journalctl --no-pager -q -o cat "_SYSTEMD_INVOCATION_ID=$id"; };',
            # Each load says a few lines: they must not push out what was found at the start.
            f'[ -z "$id" ] || {{ said | grep -aF {_FOUND};',
            f"said | grep -aE {_ABOUT_GPUS} | tail -n 40; }}",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> Placement:
        first, *log = output or [""]
        said = tuple(line for line in log if line.strip())
        try:
            models = parsed(first, RUNNING).get("models") or []
        except FormError:
            return Placement({}, said, answers=False)
        running = {
            entry["name"]: Loaded(entry["size"], entry.get("size_vram") or 0) for entry in models
        }
        return Placement(running, said)


class SurroundingsState(FactBase[Surroundings]):
    """What the server that `unit` runs needs to find its GPUs.

    `sandboxed`: the unit's own sandbox is the server's, and not that of a container.
    """

    default = Surroundings

    @override
    def command(self, unit: str, *, sandboxed: bool, has_switches: bool) -> StringCommand:
        name = QuoteString(unit)
        allowed = StringCommand('echo "allowed $(systemctl show --value -p DeviceAllow --', name)
        return StringCommand(
            'echo "driver $(cat /sys/module/nvidia/version 2>/dev/null)";'
            " out=$(nvidia-smi -L 2>&1) || echo \"refusal $(echo \"$out\" | tr '\\n' ' ')\";"
            " echo \"$out\" | sed -n 's/.*(UUID: \\(GPU-[^)]*\\)).*/uuid \\1/p';"
            " for n in nvidiactl nvidia-uvm nvidia0; do"
            ' [ -c /dev/$n ] || echo "missing /dev/$n"; done;',
            'echo "drop-ins $(systemctl show --value -p DropInPaths --', name, ')";',
            "pid=$(systemctl show --value -p MainPID --", name, ");",
            "tr '\\0' '\\n' 2>/dev/null < /proc/${pid:-0}/environ"
            " | sed -n 's/^CUDA_VISIBLE_DEVICES=/visible /p';",
            StringCommand(allowed, "| tr '\\n' ' ')\";") if sandboxed else "",
            'echo "fabric $(systemctl is-active nvidia-fabricmanager)"' if has_switches else "true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> Surroundings:
        values: dict[str, list[str]] = {}
        for line in output:
            name, _, value = line.partition(" ")
            values.setdefault(name, []).append(value.strip())

        def first(name: str) -> str | None:
            return values.get(name, [""])[0] or None

        return Surroundings(
            driver=first("driver"),
            refusal=first("refusal"),
            uuids=tuple(values.get("uuid", [])),
            missing=tuple(values.get("missing", [])),
            # Empty ones say something: no GPU is visible, no device is allowed.
            visible=next(iter(values.get("visible", [])), None),
            allowed=next(iter(values.get("allowed", [])), None),
            drop_ins=first("drop-ins"),
            fabric=first("fabric"),
        )


def _shown(text: str) -> str:
    """The end of what a server said, as it can be shown."""
    return "".join(c if c.isprintable() else " " for c in text[-200:]).strip()


def _exports(environment: Mapping[str, str]) -> list[str | QuoteString]:
    return ["env", *(QuoteString(f"{name}={value}") for name, value in environment.items())]
