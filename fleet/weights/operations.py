"""The weights of a host: that they are there, and nothing else."""

from __future__ import annotations

import json

from pyinfra import host
from pyinfra.api import StringCommand, operation

from fleet.kit.commands import Commands, or_journal
from fleet.kit.loaders import Loader, LoaderCheck, report_undeclared
from fleet.kit.places import as_user
from fleet.weights.facts import WeightsState
from fleet.weights.paths import (
    WEIGHTS_CONFIG,
    WEIGHTS_PROGRAM,
    WEIGHTS_STATE,
    WEIGHTS_UNIT,
    WEIGHTS_USER,
)

_LOADER = Loader("the weights", WEIGHTS_UNIT, WEIGHTS_STATE)


@operation()
def provide_weights(config: str, wait_timeout: float | None) -> Commands:
    """Have the weights that `config` (the loader's, as JSON) declares, by a run of its unit.

    `wait_timeout` is in seconds; None starts the loader and does not wait for it.
    """

    def look() -> LoaderCheck:
        found: LoaderCheck = host.get_fact(WeightsState, config=config)
        return found

    check = look()
    report_undeclared(check, "weights_prune", prune=json.loads(config)["prune"])
    yield from _LOADER.provide(check, look, wait_timeout)


@operation()
def prune_weights(config: str) -> Commands:
    """Have no weights that `config` does not declare, where it says so.

    By the loader's user, who alone may write there; one that is at work prevents it until the next
    deploy.
    """
    check: LoaderCheck = host.get_fact(WeightsState, config=config)
    if not json.loads(config)["prune"] or not check.undeclared:
        host.noop("no weights to remove")
        return
    prune = StringCommand(*as_user(WEIGHTS_USER), WEIGHTS_PROGRAM, "--prune", WEIGHTS_CONFIG)
    yield or_journal(prune, WEIGHTS_UNIT)
