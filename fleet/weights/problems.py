"""What of the settings of weights cannot work."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.errors import FleetError
from fleet.weights.declared import declared, lock_command, token_name
from fleet.weights.lock import differs
from fleet.weights.settings import Weights


def problems(host: FleetHost, _: Fleet) -> Iterator[str]:
    """Locks that are not there, are none, or were made for something else."""
    for name, item in declared(host).items():
        where = f"{host.name}: weights: {name}: lock = {item.declaration.lock!r}"
        fix = f"in the project's directory, run: {lock_command(item.declaration)}"
        try:
            other = differs(item.lock, item.declaration)
        except FleetError as error:
            yield f"{where}: {error}; {fix}"
            continue
        if other:
            yield f"{where}: was made for {other}, which is not what is declared; {fix}"


def stored_problems(host: FleetHost, fleet: Fleet) -> Iterator[str]:
    """A token that is not in the store, or is none."""
    name = token_name(host[Weights])
    if name is None or not host[Weights].weights:
        return
    where = f"{host.name}: weights_token = {host[Weights].token!r}"
    token = fleet.secrets.read(name)
    if token is None:
        yield (
            f"{where}: the store has no secret {name}; put the hub's token, mode 600, at "
            f"{fleet.secrets.path(name)}"
        )
    elif not re.fullmatch(r"[A-Za-z0-9._~+/=-]{1,4096}", token.get_secret_value()):
        yield (
            f"{where}: {name} in {fleet.secrets.path(name)} is no token: letters, digits and "
            "'._~+/=-' on one line, such as hf_...; put the hub's token there"
        )
