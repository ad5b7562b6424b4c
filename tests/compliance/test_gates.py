"""What is declared fits, and what is loaded is where it belongs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fleet.gates import asked as gates
from fleet.gates.facts import PlacementState
from fleet.gates.fit import judge
from fleet.gates.placement import Placement
from fleet.kit.on_host.outside import parsed
from fleet.models.on_host.ollama_protocol import SHOWN, load_request
from fleet.ollama.facts import OllamaModels

from .conftest import Server
from .connection import Target
from .outcomes import Say

_PATIENCE = 900  # seconds for a cold load of a large model


def test_fits(gpu_host: Target, measured: Say) -> None:
    """The declared models fit the memory that each server has for them."""
    declared = gpu_host.declared
    try:
        budgets = gates.budgets(declared, gpu_host.fact)
    except gates.UnknownMemoryError as error:
        pytest.fail(f"{declared.name}: {error}", pytrace=False)
    candidates = gates.candidates(declared, gpu_host.fact)
    verdict = judge(budgets, candidates, gates.offloaded(declared, gpu_host.fact))
    measured("; ".join(verdict.notes))
    assert verdict.refusals == (), "\n".join(verdict.refusals)


def test_placement(instance: Server, measured: Say) -> None:
    """Models are wholly on their server's GPUs, or on the CPU by declaration."""
    host, item = instance.target, instance.declared
    if item not in gates.on_gpu(host.declared, host.fact):
        measured(f"{instance.label}{gates.why_on_cpu(host.declared, item)}")
        return
    with _something_loaded(instance) as placement:
        assert placement.answers, f"its API does not answer{host.journal(item.unit)}"
        assert placement.running, f"nothing is loaded{host.journal(item.unit)}"
    shares = [
        f"{name} {100 * loaded.size_vram // max(loaded.size, 1)} %"
        for name, loaded in sorted(placement.running.items())
    ]
    measured(f"{instance.label}{', '.join(shares)} on the GPU")
    texts = gates.misplaced(host.declared, host.fact, [(item, placement)])
    assert texts == [], "\n".join(texts)


@contextmanager
def _something_loaded(instance: Server) -> Iterator[Placement]:
    """The placement of what is in memory; an empty one gets the largest declared for a moment."""
    host, item = instance.target, instance.declared
    placement: Placement = host.fact(PlacementState, fresh=True, url=item.url, unit=item.unit)
    tags = host.fact(OllamaModels, url=item.url)
    declared = {model.full_name for model in gates.declared_models(item.settings, host.fact)}
    present = declared & set(tags)
    if placement.running or not present:
        yield placement
        return
    # What else is on the disk is nobody's claim, and a small model proves nothing of a large one.
    name = max(present, key=lambda name: int(tags[name]["size"]))
    try:
        _load(instance, name)
        yield host.fact(PlacementState, fresh=True, url=item.url, unit=item.unit)
    finally:
        _load(instance, name, keep_alive=0)


def _load(instance: Server, name: str, **more: object) -> None:
    """Load a model as its kind is loaded: one that only embeds refuses to generate."""
    shown = parsed(_ask(instance, "show", {"model": name}), SHOWN, "/api/show")
    path, body = load_request(name, shown)
    _ask(instance, path.removeprefix("/api/"), {**body, **more})


def _ask(instance: Server, what: str, body: dict[str, object]) -> str:
    return instance.target.run(
        f"curl -fsS --noproxy '*' --max-time {_PATIENCE} -d %s %s",
        json.dumps(body),
        f"{instance.declared.url}/api/{what}",
    )
