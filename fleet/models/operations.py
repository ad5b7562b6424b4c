"""The models of a host: which, and that they are there."""

from __future__ import annotations

import json

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.facts.files import FileContents

from fleet.kit.commands import Commands, fail, or_journal
from fleet.kit.jobs import run_job
from fleet.kit.on_host.common import size_text
from fleet.models.choice import choose
from fleet.models.facts import HostMemory, ModelsCheck, ModelsState
from fleet.models.paths import LOADER_STATE, MODEL_CHOICE
from fleet.models.progress import LoaderRun, ModelsJob
from fleet.ollama.paths import LOADER_UNIT


@operation()
def choose_model() -> Commands:
    """Have what `auto` stands for on this host written down, and say which model it is and why.

    Decided when the step is executed: the driver that tells of the GPUs may be of this very run.
    """
    choice = choose(host.get_fact(HostMemory))
    if choice is None:
        yield fail(
            f"{host.name}: ollama_models: 'auto' needs nvidia-smi to tell how much memory the GPU "
            "on the bus has, and it does not answer; mend the driver, or name the model"
        )
        return
    host.log(f"auto is {choice.model}: {choice.why}")
    wanted = json.dumps(choice._asdict())
    if host.get_fact(FileContents, path=MODEL_CHOICE) != [wanted]:
        yield StringCommand(
            "install -D -m 644 /dev/stdin", f"{MODEL_CHOICE}.new",
            "&& mv -f", f"{MODEL_CHOICE}.new", MODEL_CHOICE, _stdin=[wanted],
        )  # fmt: skip


@operation()
def provide_models(config: str, wait_timeout: float | None) -> Commands:
    """Have the models that `config` (the loader's, as JSON) declares, by a run of its unit.

    A loader that runs already is left alone and waited for; what it was not told of is then done
    by another run. `wait_timeout` is in seconds; None starts the loader and does not wait for it.
    """
    check: ModelsCheck = host.get_fact(ModelsState, config=config)
    _report_undeclared(check, prune=json.loads(config)["prune"])
    if check.is_known and not check.pending:
        host.noop(f"{', '.join(check.models)} as declared")
        return
    for name, reason in check.pending.items():
        host.log(f"{name} {reason}")
    if wait_timeout is None:
        yield or_journal(_start(), LOADER_UNIT)
        return
    yield from _run_loader(wait_timeout)
    left = host.get_fact(ModelsState, config=config)
    if left.pending:
        yield from _run_loader(wait_timeout)
        left = host.get_fact(ModelsState, config=config)
    if left.pending:
        reasons = "; ".join(f"{name} {reason}" for name, reason in left.pending.items())
        yield or_journal(fail(f"{host.name}: {reasons}"), LOADER_UNIT)
    elif left.why:
        yield fail(f"{host.name}: whether the models are as declared is not known: {left.why}")


def _run_loader(wait_timeout: float) -> Commands:
    def describe(job: LoaderRun) -> str:
        parts = [f"{name}: {model}" for name, model in job.models.items() if not model.is_quiet]
        return "; ".join(parts) or "models: starting"

    def look() -> LoaderRun:
        return host.get_fact(ModelsJob, unit=LOADER_UNIT, path=LOADER_STATE)

    yield from run_job(LOADER_UNIT, _start(), look, describe, wait_timeout)


def _start() -> StringCommand:
    """Start the loader now. One that runs goes on, and one that failed need not wait."""
    return StringCommand(f"systemctl daemon-reload; systemctl start {LOADER_UNIT}")


def _report_undeclared(check: ModelsCheck, *, prune: bool) -> None:
    for name, entry in sorted(check.undeclared.items()):
        fate = "models_prune = True removes it"
        if prune:
            fate = "in use, so it stays" if entry["in_use"] else "it is removed"
        host.log(f"{name} ({size_text(entry['size'])}) is not declared: {fate}")
