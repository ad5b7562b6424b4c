"""What is declared fits, and what is loaded is where it belongs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from fleet import gates
from fleet.facts.memory import PlacementState
from fleet.facts.ollama import OllamaModels
from fleet.fit import judge
from fleet.inventory import Instance
from fleet.placement import Placement
from tests.compliance.connection import Target

_PATIENCE = 900  # seconds for a cold load of a large model


def test_fits(gpu_host: Target, measured: Callable[[str], None]) -> None:
    """The declared models fit the memory that each server has for them."""
    declared = gpu_host.declared
    try:
        rooms = gates.rooms(declared, gpu_host.fact)
    except gates.UnknownMemoryError as error:
        pytest.fail(f"{declared.name}: {error}", pytrace=False)
    candidates = gates.candidates(declared, gpu_host.fact)
    verdict = judge(rooms, candidates, gates.offloaded(declared))
    measured("; ".join(verdict.notes))
    assert verdict.refusals == (), "\n".join(verdict.refusals)


def test_placement(gpu_host: Target, measured: Callable[[str], None]) -> None:
    """Models are wholly on their server's GPUs, or on the CPU by declaration."""
    declared = gpu_host.declared
    wanting = gates.on_gpu(declared, gpu_host.fact)
    seen = []
    for item in wanting:
        with _something_loaded(gpu_host, item) as placement:
            assert placement.running, f"{item.unit} has nothing loaded{gpu_host.journal(item.unit)}"
            seen.append((item, placement))
    on_cpu = [item.name or "Ollama" for item in declared.instances if item not in wanting]
    shown = [f"{', '.join(on_cpu)}: {gates.CPU_BY_DECLARATION}"] if on_cpu else []
    for item, placement in seen:
        shares = [
            f"{name} {100 * loaded.size_vram // max(loaded.size, 1)} % on the GPU"
            for name, loaded in sorted(placement.running.items())
        ]
        shown.append(f"{item.name}: {', '.join(shares)}".removeprefix(": "))
    measured("; ".join(shown))
    texts = gates.misplaced(declared, gpu_host.fact, seen)
    assert texts == [], "\n".join(texts)


@contextmanager
def _something_loaded(target: Target, instance: Instance) -> Iterator[Placement]:
    """The placement of what is in memory; an empty one gets the smallest model for a moment."""
    placement: Placement = target.fact(PlacementState, url=instance.url, unit=instance.unit)
    sizes = {
        name: entry["size"] for name, entry in target.fact(OllamaModels, url=instance.url).items()
    }
    if placement.running or not sizes:
        yield placement
        return
    name = min(sizes, key=lambda name: sizes[name])
    try:
        _generate(target, instance, {"model": name})
        yield target.fact(PlacementState, url=instance.url, unit=instance.unit)
    finally:
        _generate(target, instance, {"model": name, "keep_alive": 0})


def _generate(target: Target, instance: Instance, body: dict[str, object]) -> None:
    target.run(
        f"curl -fsS --noproxy '*' --max-time {_PATIENCE} -o /dev/null -d %s %s",
        json.dumps(body),
        f"{instance.url}/api/generate",
    )
