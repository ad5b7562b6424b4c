"""Whether the declared models fit the memory that each Ollama instance has for them.

Pure: what the host told, and what is declared, becomes refusals in an operator's words. A model
has to fit alone, for Ollama unloads others to make room; those with `load` have to fit together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from fleet.gates.memory import (
    BATCH,
    GIB,
    HEADROOM,
    HOST_RESERVE,
    MARGIN,
    Load,
    Need,
    Shape,
    default_context,
    gib,
    need,
    prediction,
    ways_to_fit,
)
from fleet.ollama.models import ModelDeclaration, full_name, with_bases
from fleet.ollama.servers import Instance


@dataclass(frozen=True)
class Candidate:
    """A model and its shape; `unknown` says what of it is not known, and why; None, if all is.

    `declared` is the name under which settings know it, which may be `auto`.
    """

    model: ModelDeclaration
    shape: Shape | None
    unknown: str | None
    declared: str

    @property
    def name(self) -> str:
        """As Ollama lists it."""
        return self.model.full_name


@dataclass(frozen=True)
class Budget:
    """An instance, and what it may fill: UUID to bytes of its GPUs, none for one on the CPU.

    `ram` is the host's memory in bytes.
    """

    instance: Instance
    gpus: tuple[tuple[str, int], ...]
    ram: int

    @property
    def on_gpu(self) -> bool:
        """Whether its models are to be on GPUs."""
        return bool(self.gpus)

    @property
    def sizes(self) -> list[int]:
        """Bytes of its GPUs, the largest first."""
        return sorted((size for _, size in self.gpus), reverse=True)

    @property
    def capacity(self) -> int:
        """Bytes in all, less what is declared to be left."""
        if not self.gpus:
            return self.ram - HOST_RESERVE
        left = int(self.instance.settings.env.get("OLLAMA_GPU_OVERHEAD") or 0)
        return sum(size - left for size in self.sizes)

    @property
    def has(self) -> str:
        """`1 GPU with 15.0 GiB`."""
        if not self.gpus:
            return f"{gib(self.capacity)} of memory for models, and no GPU"
        return f"{len(self.gpus)} GPU{'s' if len(self.gpus) > 1 else ''} with {gib(self.capacity)}"

    @property
    def label(self) -> str:
        """The instance as a message begins with it."""
        return f"instance {self.instance.name}: " if self.instance.name else ""

    def of(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """Those of the host's models that the instance serves."""
        own = {model.full_name for model in with_bases(self.instance.settings.models)}
        return [item for item in candidates if full_name(item.declared) in own]

    def shares_with(self, other: Budget) -> bool:
        """Whether both load into the same memory."""
        if not (self.gpus and other.gpus):
            return not (self.gpus or other.gpus)
        return bool({uuid for uuid, _ in self.gpus} & {uuid for uuid, _ in other.gpus})


@dataclass(frozen=True)
class Verdict:
    """What is refused, and what is only said."""

    refusals: tuple[str, ...]
    notes: tuple[str, ...]


def judge(
    budgets: Iterable[Budget], candidates: Iterable[Candidate], offload: Collection[str]
) -> Verdict:
    """Compare what the models need with what the instances have.

    `offload` are the full names of the models that may be partly on the CPU.
    """
    budgets, candidates = list(budgets), list(candidates)
    known = [item for item in candidates if item.shape or item.model.memory]
    refusals: list[str] = []
    for budget in budgets:
        beside = sum(
            _warm(other, other.of(known))[1]
            for other in budgets
            if other is not budget and budget.shares_with(other)
        )
        free = budget.capacity - beside
        own = budget.of(known)
        alone = [line for item in own for line in _refuse(budget, item, free, beside, offload)]
        refusals += alone or _refuse_together(budget, own, free, beside, offload)
    notes = [
        f"{item.name}: how much memory it needs is not known: {item.unknown}; declare `memory` for "
        "it in ollama_models"
        for item in candidates
        if item.unknown is not None
    ]
    notes += [_said(budget, budget.of(known)) for budget in budgets]
    return Verdict(tuple(refusals), tuple(notes))


def load_of(budget: Budget, model: ModelDeclaration) -> Load:
    """How the instance would load a model. A model's own num_ctx goes before the instance's."""
    settings = budget.instance.settings
    context = model.parameters.num_ctx or settings.context_length or default_context(budget.sizes)
    batch = model.parameters.num_batch or BATCH
    return Load(context, settings.num_parallel, settings.kv_cache_type, batch)


def need_of(budget: Budget, item: Candidate) -> Need:
    """Memory of a model of known size in this budget, over as few GPUs as it fits on."""
    if item.model.memory:
        return Need(round(item.model.memory * GIB), 0, 0)
    assert item.shape is not None, item
    load = load_of(budget, item.model)
    return need(item.shape, load, _gpus_used(budget, item.shape, load))


def _gpus_used(budget: Budget, shape: Shape, load: Load) -> int:
    """Ollama spreads a model over no more GPUs than it needs, unless it is told to."""
    sizes = budget.sizes
    first = len(sizes) if budget.instance.settings.sched_spread else 1
    for count in range(first, len(sizes)):
        if need(shape, load, count).total <= sum(sizes[:count]):
            return count
    return len(sizes)


def _warm(budget: Budget, known: Iterable[Candidate]) -> tuple[list[Candidate], int]:
    """The models that stay loaded, one for each file of weights, and their memory together.

    In the order in which the loader takes them: those that are made come last.
    """
    ordered = sorted(known, key=lambda item: bool(item.model.base))
    by_root = {item.model.root: item for item in ordered if item.model.load}
    warm = list(by_root.values())
    return warm, sum(need_of(budget, item).total for item in warm)


def _may_leave_gpu(item: Candidate, offload: Collection[str]) -> bool:
    return item.name in offload or item.model.root in offload


def _refuse(
    budget: Budget, item: Candidate, free: int, beside: int, offload: Collection[str]
) -> Iterator[str]:
    needed = need_of(budget, item)
    may_leave = budget.on_gpu and _may_leave_gpu(item, offload)
    if budget.on_gpu and item.model.parameters.num_gpu == 0 and not may_leave:
        yield (
            f"{budget.label}{item.name} has num_gpu = 0, which keeps it off the GPU; leave it out, "
            f"or set models_cpu_offload = [{item.declared!r}]"
        )
        return
    if needed.total <= free + (budget.ram - HOST_RESERVE if may_leave else 0):
        return
    load = load_of(budget, item.model)
    held = f", {gib(beside)} of it for what other instances keep loaded" if beside else ""
    yield (
        f"{budget.label}{item.name} needs {needed}{_loaded_as(item, load)}, and there is "
        f"{budget.has}{held}: {_ways(budget, item, load, free)}"
    )


def _loaded_as(item: Candidate, load: Load) -> str:
    if item.model.memory:
        return " as declared"
    context = min(load.context, (item.shape.trained if item.shape else 0) or load.context)
    return (
        f" with a context of {context} tokens, {load.parallel} "
        f"request{'s' if load.parallel > 1 else ''} at once and a cache of {load.cache}"
    )


def _ways(budget: Budget, item: Candidate, load: Load, free: int) -> str:
    """The settings that would make it fit, in the words in which they are declared."""
    ways = []
    if item.shape and not item.model.memory:
        used = len(budget.sizes)
        ways = [
            _spoken(budget, item, load, way) for way in ways_to_fit(item.shape, load, free, used)
        ]
    text = f"{' or '.join(ways)} fits" if ways else "no setting makes it fit"
    text += "; or declare a smaller model"
    if budget.on_gpu:
        text += f", or models_cpu_offload = [{item.declared!r}] to run it partly on the CPU, slowly"
    return text


def _spoken(budget: Budget, item: Candidate, load: Load, way: Load) -> str:
    if way.context != load.context and item.model.parameters.num_ctx:
        return f"num_ctx = {way.context} of {item.model.name}"
    prefix = "" if budget.instance.name else "ollama_"
    of = f" of instance {budget.instance.name}" if budget.instance.name else ""
    if way.parallel != load.parallel:
        return f"{prefix}num_parallel = {way.parallel}{of}"
    if way.cache != load.cache:
        return f"{prefix}kv_cache_type = {way.cache!r}{of}"
    return f"{prefix}context_length = {way.context}{of}"


def _refuse_together(
    budget: Budget, known: list[Candidate], free: int, beside: int, offload: Collection[str]
) -> list[str]:
    warm, total = _warm(budget, known)
    if any(budget.on_gpu and _may_leave_gpu(item, offload) for item in warm):
        free += budget.ram - HOST_RESERVE
    if total <= free or not warm:
        return list(_pushes_out(budget, warm, free)) if budget.on_gpu else []
    names = " and ".join(f"{item.name} ({gib(need_of(budget, item).total)})" for item in warm)
    held = f", {gib(beside)} of it for what other instances keep loaded" if beside else ""
    return [
        f"{budget.label}{names} are to stay loaded together, which needs {gib(total)}, and there "
        f"is {budget.has}{held}: take `load` from one of them, lower their context, or give the "
        "instance more GPUs"
    ]


def _pushes_out(budget: Budget, warm: Iterable[Candidate], free: int) -> Iterator[str]:
    """Which of the models, loaded in this order, pushes out another though it fits beside it."""
    for place, item in enumerate(warm):
        # llama.cpp's margin is left of what is free now too.
        share = HEADROOM * (free - MARGIN)
        expected = _expected(budget, item)
        if place and expected > share:
            yield (
                f"{budget.label}{item.name} would push out what is loaded before it: Ollama "
                f"expects {gib(expected)} of it, and takes at most {HEADROOM:.0%} of what is free "
                f"then, {gib(share)}. Declare the largest model with `load` first, take `load` "
                "from one, lower their context, or give the instance more GPUs"
            )
            return
        free -= need_of(budget, item).total


def _expected(budget: Budget, item: Candidate) -> int:
    if item.shape is None or item.model.memory:
        return need_of(budget, item).total
    return prediction(item.shape, load_of(budget, item.model))


def _said(budget: Budget, known: list[Candidate]) -> str:
    needs = (
        ", ".join(f"{item.name} {gib(need_of(budget, item).total)}" for item in known) or "nothing"
    )
    return f"{budget.label}{needs}; there is {budget.has}"
