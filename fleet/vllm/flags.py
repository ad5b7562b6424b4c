"""Flags of vLLM's server that are declared beside the settings, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from fleet.declare.types import Words, text_form

# Each is the business of a setting, which is named; the API must have what the others know.
OURS = {
    "model": "weights",
    "served-model-name": "served_names",
    "host": "vllm_listen",
    "port": "port",
    "uds": "port",
    "tensor-parallel-size": "tensor_parallel",
    "max-model-len": "context",
    "gpu-memory-utilization": "memory_share",
    "max-num-seqs": "max_sequences",
    "max-num-queued-reqs": "max_queued",
    "kv-cache-dtype": "kv_cache",
    "tool-call-parser": "tool_parser",
    "enable-auto-tool-choice": "tool_parser",
    "reasoning-parser": "reasoning_parser",
    "shutdown-timeout": "vllm_shutdown_timeout",
    "disable-fastapi-docs": "nothing: its pages are never served",
    "enable-force-include-usage": "nothing: the gateway counts by it",
}
REFUSED = {
    "api-key": (
        "every user of the host could read it in the list of processes, and it guards a part of "
        "the API only; the gateway has the keys"
    ),
    "config": "its file could hold any other flag unseen; declare them here",
    "tool-server": "it has vLLM run programs that a model writes",
    "ssl-keyfile": "the gateway speaks HTTP to it",
    "ssl-certfile": "the gateway speaks HTTP to it",
}
# Each of these multiplies the GPUs that a server takes.
PARALLEL = ("pipeline-parallel-size", "prefill-context-parallel-size", "data-parallel-size")


def _check_value(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError("neither true or false, nor a number, nor text")
    if isinstance(value, str) and (not value.isprintable() or set("\"'\\") & set(value)):
        raise ValueError(
            "not text on one line without quotes and backslashes; a part of what vLLM takes as "
            "JSON is a flag of its own, such as speculative-config.method"
        )
    return value


FlagName = Annotated[
    str,
    text_form(
        r"[a-z][a-z0-9]*(-[a-z0-9]+)*(\.[a-z][a-z0-9_]*)*",
        "a flag's name as in `vllm serve --help`, without the dashes before it, such as "
        "max-num-batched-tokens, or compilation-config.mode for a part of one",
    ),
    Words("flag"),
]
FlagValue = Annotated[
    bool | int | float | str, BeforeValidator(_check_value), Words("boolean, number or text")
]


def contradictions(flags: Mapping[str, bool | int | float | str]) -> Iterator[str]:
    """What of declared `flags` cannot be, with the fix."""
    for name in flags:
        top = name.partition(".")[0]
        if name.startswith("no-"):
            yield f"{name}: write {name.removeprefix('no-')!r} = False"
        # Its parser takes the beginning of a name for the whole.
        elif owner := next((ours for ours in OURS if ours.startswith(top)), None):
            yield f"{name} is set by this project (--{owner}); use {OURS[owner]}"
        elif refused := next((other for other in REFUSED if other.startswith(top)), None):
            yield f"{name} is refused: {REFUSED[refused]}; leave it out"
    for name in PARALLEL:
        value = flags.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            yield f"{name} = {value!r}: not a number of GPUs; write 2, or leave it out"


def words_of(flags: Mapping[str, bool | int | float | str]) -> Iterator[str]:
    """`flags` as words of a command line; `False` is the flag that begins with `no-`."""
    for name, value in flags.items():
        if value is False:
            yield f"--no-{name}"
        elif value is True:
            yield f"--{name}"
        else:
            yield from (f"--{name}", str(value))
