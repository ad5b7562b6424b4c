"""The vLLM servers of a host that runs: what they answer for, and whether their engines work."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pyinfra.api import QuoteString, StringCommand

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import Look, Told
from fleet.kit.on_host.outside import FormError, parsed
from fleet.vllm.paths import watch_unit
from fleet.vllm.servers import VllmInstance, vllm_instances

_VERSION = {"version": str}
_MODELS = {"data": [{"id": str}]}
# Of what a server says; a longer one is no version.
_SHOWN = 40


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """Version and models that each server tells, and what its watch has found last."""
    for item in vllm_instances(me):
        commands = [
            StringCommand("curl -fsS --noproxy '*' --max-time 2", QuoteString(f"{item.url}{path}"))
            for path in ("/version", "/v1/models")
        ]
        said = StringCommand(
            "journalctl -q --no-pager -o cat -n 1 -u", QuoteString(watch_unit(item.name)),
            "_COMM=python3 2>/dev/null || true",
        )  # fmt: skip
        yield Look((*commands, said), partial(_tell, item))


def _tell(item: VllmInstance, found: list[list[str]]) -> Iterator[Told]:
    try:
        version = str(parsed("\n".join(found[0]), _VERSION)["version"])[:_SHOWN]
        models = [it["id"] for it in parsed("\n".join(found[1]), _MODELS)["data"]]
    except FormError:
        version, models = "", []
    lacking = [name for name in item.declared.served_names if name not in models]
    watched = " ".join(found[2])[:_SHOWN]
    values = {
        "servers": {
            item.name: {
                "version": version or None,
                "models": models,
                "unit": item.unit,
                "watch": watched or None,
            }
        }
    }
    if not version:
        yield Told(
            f"{item.name}: vLLM does not answer",
            values,
            f"{item.unit} does not answer at {item.url}; it may be starting: see `journalctl -u "
            f"{item.unit}` there",
        )
        return
    problem = ""
    if lacking:
        problem = f"{item.unit} does not serve {', '.join(lacking)}: deploy, and it will"
    yield Told(f"{item.name}: vLLM {version}", values, problem)
