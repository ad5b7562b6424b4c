"""Take a GPU host out of service without cutting off anybody, and bring it back warm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyinfra.api import State
from pyinfra.api.exceptions import ConnectError
from pyinfra.context import ctx_host

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.front import Front
from fleet.kit.connection.careful import Careful
from fleet.kit.errors import FleetError
from fleet.kit.nested import carry_out
from fleet.models.facts import HostMemory
from fleet.models.warm import converse, first_model
from fleet.ollama.servers import instances_of
from fleet.vllm.operations import wait_for_all
from fleet.vllm.servers import vllm_instances


@contextmanager
def every_gateway(state: State, fleet: Fleet) -> Iterator[Front]:
    """The fleet's gateways, all of them, connected and locked; no other host is.

    Raises:
        FleetError: one is missing: a drain holds everywhere or nowhere.
    """
    try:
        front = Front(state, fleet)
        absent = [f"{name}: {why}" for name, why in front.missing.items()]
        absent += front.taken.values()
        if absent:
            raise FleetError(
                f"{'; '.join(absent)}; every gateway is needed, and nothing was changed"
            )
        if not front.doors:
            raise FleetError(
                "no gateway of this inventory is deployed yet, and so there is nothing to change"
            )
        yield front
    finally:
        for host in state.inventory:
            if host.connected:
                if isinstance(host.connector, Careful):
                    host.connector.let_go()
                host.disconnect()


def warm(state: State, gpu: FleetHost) -> None:
    """Have every server of `gpu` answer with its first model, so that nobody waits for a load.

    Raises:
        FleetError: the host cannot be reached, or a server does not answer in its own time.
    """
    host = state.inventory.get_host(gpu.name)
    try:
        host.connect(show_errors=False, raise_exceptions=True)
    except ConnectError as error:
        raise FleetError(
            f"{gpu.name}: no connection: {error}; --cold lets it in without a chat"
        ) from None
    with ctx_host.use(host):
        memory = host.get_fact(HostMemory)
    for item in instances_of(gpu):
        model = first_model(item, memory)
        if model is None:
            raise FleetError(f"{gpu.name}: nvidia-smi does not tell what `auto` is; use --cold")
        if said := carry_out(state, host, converse(item, model)):
            raise FleetError(f"{gpu.name}: {said}; --cold lets it in without a chat")
    with ctx_host.use(host):
        said = carry_out(state, host, wait_for_all(vllm_instances(gpu)))
    if said:
        raise FleetError(f"{gpu.name}: {said}; --cold lets it in without a chat")
