"""The Ollama servers of a host that runs: whether they answer, and which release."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from pyinfra.api import QuoteString, StringCommand

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import Look, Told
from fleet.kit.on_host.outside import FormError, parsed
from fleet.ollama.servers import Instance, instances_of

_VERSION = {"version": str}
# Of what a server says; a longer one is no version.
_SHOWN = 40


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """The version that each server answers."""
    for item in instances_of(me):
        url = QuoteString(f"{item.url}/api/version")
        command = StringCommand("curl -fsS --noproxy '*' --max-time 2", url)
        yield Look((command,), partial(_tell, item))


def _tell(item: Instance, found: list[list[str]]) -> Iterator[Told]:
    label = f"{item.name}: " if item.name else ""
    # The version of an image is its own matter.
    declared = item.settings.version if item.runtime == "systemd" else None
    try:
        running = str(parsed("\n".join(found[0]), _VERSION)["version"])[:_SHOWN]
    except FormError:
        running = ""
    values = {
        "servers": {
            item.name or "": {"version": running or None, "declared": declared, "unit": item.unit}
        }
    }
    if not running:
        yield Told(
            f"{label}Ollama does not answer",
            values,
            f"{item.unit} does not answer at {item.url}: see `journalctl -u {item.unit}` there",
        )
        return
    problem = ""
    if declared and running != declared:
        problem = (
            f"{item.unit} runs Ollama {running}, and declared is {declared}: deploy, or declare "
            f"ollama_version = {running!r}"
        )
    yield Told(f"{label}Ollama {running}", values, problem)
