"""What `fleet doctor` looks at of memory and disk: by the gates of the deploy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import (
    Ask,
    Line,
    UnansweredError,
    fail,
    not_checked,
    ok,
    warn,
)
from fleet.gates import asked as gates
from fleet.gates.fit import Candidate, judge
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.reach import FreeRoom
from fleet.kit.on_host.common import size_text
from fleet.models.on_host.ollama_protocol import manifest_path
from fleet.models.settings import Models
from fleet.ollama.settings import Ollama

_GIGABYTE = 1_000_000_000
_MEMORY, _DISK = "memory for models", "disk for models"


def checks(me: FleetHost, _: Fleet, ask: Ask) -> Iterator[Line]:
    """Whether the declared models fit the host's memory, its GPUs', and its disk."""
    try:
        candidates = gates.candidates(me, ask)
        yield from _fit(me, ask, candidates)
        yield _disk(me, ask, candidates)
    except UnansweredError as error:
        yield not_checked(_MEMORY, str(error))


def _fit(me: FleetHost, ask: Ask, candidates: list[Candidate]) -> Iterator[Line]:
    try:
        budgets = gates.budgets(me, ask)
    except gates.UnknownMemoryError as error:
        yield not_checked(_MEMORY, f"{error}; the deploy judges once the driver is there")
        return
    verdict = judge(budgets, candidates, gates.offloaded(me, ask))
    for line in verdict.refusals:
        yield fail(_MEMORY, line)
    unknown = [item.name for item in candidates if item.unknown is not None]
    for note in verdict.notes[: len(unknown)]:
        yield warn(_MEMORY, note)
    if not verdict.refusals:
        for note in verdict.notes[len(unknown) :]:
            yield ok(_MEMORY, note)


def _disk(me: FleetHost, ask: Ask, candidates: Iterable[Candidate]) -> Line:
    """What is still to be pulled, and the reserve that the loader leaves."""
    place = me[Ollama].models_dir
    roots = {item.model.root: item for item in candidates if not item.model.gguf}
    paths = {root: manifest_path(place, root) for root in roots}
    there = ask(FileStates, paths=list(paths.values()))
    wanted = [item for root, item in roots.items() if paths[root] not in there]
    unknown = [item.name for item in wanted if item.shape is None]
    needed = sum(item.shape.weights for item in wanted if item.shape is not None)
    reserve = round(me[Models].disk_reserve * _GIGABYTE)
    free = ask(FreeRoom, paths=[place]).get(place)
    if free is None:
        return not_checked(_DISK, f"{place}: df does not tell of it")
    text = f"{place}: {size_text(free)} free, {size_text(needed)} to pull"
    if needed and needed + reserve > free:
        return fail(
            _DISK,
            f"{text} and {size_text(reserve)} to leave (models_disk_reserve); make room, or put "
            "ollama_models_dir on a larger disk",
        )
    if unknown:
        return warn(_DISK, f"{text}, and {', '.join(unknown)}, whose size nobody tells")
    return ok(_DISK, text)
