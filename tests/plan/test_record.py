"""What a host keeps of its deploys: no change, and nothing of a host that failed."""

from __future__ import annotations

from pyinfra.api.exceptions import OperationError
from pyinfra.context import ctx_state

from fleet.kit.facts.units import ABSENT, UnitState
from fleet.platform.record import DEPLOYED, DEPLOYING
from tests.fleets import GPU
from tests.plan.simulation import bare, plan


def noted(quiet: list[str], host: str, path: str) -> list[int]:
    """The places of the commands that write `path` on `host`."""
    return [
        place
        for place, line in enumerate(quiet)
        if line.startswith(f"{host}: ") and f"mv -f {path}.new {path}" in line
    ]


def test_a_deploy_notes_its_begin_and_its_end_and_neither_is_a_change() -> None:
    result = plan({"gpu1": GPU}, {"gpu1": bare()})
    [begun], [ended] = (noted(result.quiet, "gpu1", path) for path in (DEPLOYING, DEPLOYED))
    assert begun < ended
    assert result.quiet[ended].endswith(f"&& rm -f {DEPLOYING}")
    assert not any("Record" in name for name in result.order)


def test_a_host_that_fails_is_not_said_to_be_deployed() -> None:
    def answer(**_: object) -> object:
        if not ctx_state.get().is_executing:
            return ABSENT
        raise OperationError("the disk is full")

    hosts = {"gpu1": GPU, "gpu2": ("gpu", {})}
    result = plan(hosts, {"gpu1": bare() | {UnitState: answer}, "gpu2": bare()}, alone=True)
    assert list(result.failed) == ["@fake/gpu1"]
    assert [len(noted(result.quiet, host, DEPLOYED)) for host in hosts] == [0, 1]
    assert [len(noted(result.quiet, host, DEPLOYING)) for host in hosts] == [1, 1]
