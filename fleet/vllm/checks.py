"""What `fleet doctor` looks at before vLLM is deployed, by the deploy's own judgement."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import (
    Ask,
    Line,
    UnansweredError,
    fail,
    not_checked,
    ok,
    reached,
    warn,
)
from fleet.vllm.asked import judged, weights_of
from fleet.vllm.files import lock_file
from fleet.vllm.problems import stored_problems
from fleet.vllm.servers import vllm_instances
from fleet.vllm.settings import Vllm

_WHAT = "vLLM"


def checks(me: FleetHost, fleet: Fleet, ask: Ask) -> Iterator[Line]:
    """Driver, GPUs and memory beside what servers want; their weights; and where packages are."""
    try:
        verdict = judged(me, ask, final=False)
        yield from (fail(_WHAT, line) for line in verdict.refusals)
        if not verdict.refusals:
            text = "; ".join(verdict.notes) or "nothing of the host tells yet whether they fit"
            yield ok(_WHAT, text)
        for item in vllm_instances(me):
            there = weights_of(item, ask)
            what = f"weights of {item.name}"
            if there.config is None:
                yield warn(what, f"{item.folder} has no config.json that can be read yet")
            else:
                yield ok(what, f"{item.folder}: {there.config.architecture}")
    except UnansweredError as error:
        yield not_checked(_WHAT, str(error))
    if me[Vllm].runtime == "venv":
        yield from _packages(me, fleet, ask)


def _packages(me: FleetHost, fleet: Fleet, ask: Ask) -> Iterator[Line]:
    what = "vLLM's packages"
    if wrong := list(stored_problems(me, fleet)):
        yield fail(what, wrong[0])
        return
    [lock] = lock_file(me, fleet)
    # What is not on a line of its own is hashes and remarks.
    found = re.search(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)(\[.*\])? *==", lock.text)
    if found is None:
        yield fail(what, f"vllm_lock = {me[Vllm].lock!r}: names no package by its version")
        return
    name = re.sub(r"[-_.]+", "-", found[1]).lower()
    yield reached(ask, what, f"{me[Vllm].index_url}/{name}/", {})
