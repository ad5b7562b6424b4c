"""The models of a host: which, and that they are there."""

from __future__ import annotations

import json

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.facts.files import FileContents

from fleet.kit.commands import Commands, fail
from fleet.kit.loaders import Loader, report_undeclared
from fleet.models.choice import choose
from fleet.models.facts import HostMemory, ModelsCheck, ModelsState
from fleet.models.paths import LOADER_STATE, MODEL_CHOICE
from fleet.ollama.paths import LOADER_UNIT

_LOADER = Loader("the models", LOADER_UNIT, LOADER_STATE)


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

    `wait_timeout` is in seconds; None starts the loader and does not wait for it.
    """

    def look() -> ModelsCheck:
        return host.get_fact(ModelsState, config=config)

    check = look()
    report_undeclared(check, "models_prune", prune=json.loads(config)["prune"])
    yield from _LOADER.provide(check, look, wait_timeout)
