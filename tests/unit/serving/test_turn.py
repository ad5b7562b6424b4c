"""Who is out when, of hosts that come to be restarted all at once. Real ones are in tests/lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import gevent
import pytest
from pyinfra.api import StringCommand
from pyinfra.context import ctx_host

from fleet.declare.fleet import Fleet, FleetHost
from fleet.gateway.front import Change, Front
from fleet.kit.commands import Commands, fail
from fleet.kit.errors import FleetError
from fleet.serving.turn import Roll, Turn, in_turn
from tests.fleets import EDGE, GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")

NAMES = ("gpu1", "gpu2", "gpu3", "gpu4")
ALIKE = dict.fromkeys(("a:1", "b:1"), frozenset(NAMES))
PAIRS = {"a:1": frozenset({"gpu1", "gpu3"}), "b:1": frozenset({"gpu2", "gpu4"})}


@dataclass
class Gates:
    """A gateway that does what it is told, and keeps who was out at once."""

    served: set[str]
    missing: dict[str, str] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    busy: frozenset[str] = frozenset()
    # Model to the hosts that are to have it, of which one is to stay.
    kinds: dict[str, frozenset[str]] = field(default_factory=lambda: ALIKE)
    most_out: int = 0
    everybody: int = 0
    gone: set[str] = field(default_factory=set)
    bereft: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.everybody = len(self.served)

    @property
    def doors(self) -> list[Gates]:
        """Itself, as far as it is reached."""
        return [] if self.missing or self.taken else [self]

    def in_service(self) -> set[str]:
        """Who gets requests."""
        return set(self.served)

    def sends_to(self, gpu: FleetHost) -> bool:
        """Whether it does."""
        return bool(self.doors) and gpu.name in self.served

    def leaves_out(self, gpu: FleetHost) -> bool:
        """Nobody is drained."""
        return bool(self.doors) and gpu.name not in self.served

    def leave(self, gpu: FleetHost) -> dict[str, list[str]]:
        """Itself, with nobody else."""
        lonely = [
            model
            for model, hosts in self.kinds.items()
            if gpu.name in hosts and self.served & hosts - self.gone <= {gpu.name}
        ]
        if not lonely:
            self.gone.add(gpu.name)
        return {"edge": lonely} if lonely else {}

    def most_at_once(self) -> int:
        """All but one."""
        return len(self.served) - 1

    def change(self, change: Change) -> None:
        """Do it."""
        (self.served.add if change.served else self.served.discard)(change.gpu.name)
        if change.served:
            self.gone.discard(change.gpu.name)
        self.bereft += [model for model, hosts in self.kinds.items() if not hosts & self.served]
        self.most_out = max(self.most_out, self.everybody - len(self.served))

    def wait_until_idle(self, gpu: FleetHost, timeout: float, say: Callable[[str], None]) -> None:
        """Some never are."""
        gevent.sleep(0)
        if gpu.name in self.busy:
            raise FleetError(f"{gpu.name}: 1 requests still run after {timeout:.0f} s")


class Told:
    """A host as a step has it."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def log(self, text: str, **_: Any) -> None:
        """Keep what an operator reads."""
        self.said.append(text)


@dataclass
class Run:
    """What came of all hosts' steps: who was restarted, with how many others, and who failed."""

    restarted: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=dict)


def fleet(kinds: dict[str, frozenset[str]] | None = None, **gateway: Any) -> Fleet:
    gpus = {
        name: (
            "gpu",
            {
                **GPU[1],
                "private_address": f"10.0.1.{name[3:]}",
                "ollama_models": [
                    model for model, hosts in (kinds or ALIKE).items() if name in hosts
                ],
            },
        )
        for name in NAMES
    }
    return fleet_of({**gpus, "edge": ("gateway", {**EDGE[1], **gateway})})


def run(
    gates: Gates,
    declared: Fleet,
    broken: str = "",
    hosts: tuple[str, ...] = NAMES,
    settled: tuple[str, ...] = NAMES,
) -> Run:
    """All `hosts` at once, as pyinfra has them; `broken` fails in its turn.

    Those not `settled` may still come in, in a later step of theirs.
    """
    roll = Roll(cast("Front", gates), declared, [declared[name] for name in NAMES])
    roll.settled.update(settled)
    done, busy = Run(), set[str]()

    def work(name: str) -> Callable[[Turn], Commands]:
        def commands(_: Turn) -> Iterator[StringCommand]:
            busy.add(name)
            done.restarted[name] = len(busy)
            gevent.sleep(0)
            yield fail("does not start") if name == broken else StringCommand("true")
            gevent.sleep(0)
            busy.discard(name)

        return cast("Callable[[Turn], Commands]", commands)

    def step(name: str) -> None:
        me = declared[name]
        with ctx_host.use(Told()):
            try:
                # As pyinfra runs an operation: up to the first command that fails.
                for command in in_turn(roll, me, work(name)):
                    if "exit 1" in (text := command.get_raw_value()):
                        done.failed[name] = text
                        break
            except FleetError as error:
                done.failed[name] = str(error)
            done.said[name] = ctx_host.get().said

    gevent.joinall([gevent.spawn(step, name) for name in hosts], raise_error=True)
    return done


def test_one_after_the_other() -> None:
    gates = Gates(set(NAMES))
    done = run(gates, fleet())
    assert done.restarted == dict.fromkeys(NAMES, 1)
    assert (gates.most_out, gates.served, done.failed) == (1, set(NAMES), {})


@pytest.mark.parametrize(("width", "served", "most"), [(2, 4, 2), (9, 4, 3), (9, 2, 1)])
def test_width_leaves_one(width: int, served: int, most: int) -> None:
    names = NAMES[:served]
    gates = Gates(set(names))
    done = run(gates, fleet(gateway_roll_width=width), hosts=names)
    assert max(done.restarted.values()) == most
    assert (gates.most_out, gates.served) == (most, set(names))


def test_a_failure_ends_the_roll() -> None:
    gates = Gates(set(NAMES))
    done = run(gates, fleet(), broken="gpu2")
    assert set(done.restarted) == {"gpu1", "gpu2"}
    assert set(done.failed) == {"gpu2", "gpu3", "gpu4"}
    assert "gpu2 failed before its turn came" in done.failed["gpu3"]
    assert gates.served == {"gpu1", "gpu3", "gpu4"}


def test_a_host_that_got_no_requests_ends_no_roll() -> None:
    """It may be broken since yesterday."""
    gates = Gates({"gpu2", "gpu3", "gpu4"})
    done = run(gates, fleet(), broken="gpu1")
    assert set(done.restarted) == set(NAMES)
    assert set(done.failed) == {"gpu1"}


def test_requests_that_do_not_end_leave_the_host_as_it_is() -> None:
    gates = Gates(set(NAMES), busy=frozenset({"gpu2"}))
    done = run(gates, fleet())
    assert "gpu2" not in done.restarted
    assert "left as it is and gets requests as before" in done.failed["gpu2"].replace("was ", "is ")
    assert gates.served == set(NAMES)


def test_the_last_one_is_restarted_at_once() -> None:
    gates = Gates({"gpu1"})
    done = run(gates, fleet(), hosts=("gpu1",))
    assert (gates.most_out, done.failed) == (0, {})
    assert "edge would have no other host to send requests for a:1, b:1" in done.said["gpu1"][0]


def test_the_last_one_is_left_when_somebody_is_to_come() -> None:
    """By a later step, as with --serial; or it failed in an earlier one, and is to be mended."""
    gates = Gates({"gpu1"})
    done = run(gates, fleet(), hosts=("gpu1",), settled=("gpu2", "gpu4"))
    assert (done.restarted, gates.served) == ({}, {"gpu1"})
    assert "left as it is" in done.failed["gpu1"]
    assert "gpu3 has failed, or comes later" in done.failed["gpu1"]


def test_the_last_of_its_kind_waits_for_the_other() -> None:
    """Each kind always has somebody, however many may be out at once."""
    gates = Gates(set(NAMES), kinds=PAIRS)
    done = run(gates, fleet(PAIRS, gateway_roll_width=3))
    assert set(done.restarted) == set(NAMES)
    assert (gates.bereft, gates.served, done.failed) == ([], set(NAMES), {})
    assert any("waits for gpu1" in line for line in done.said["gpu3"])
    assert not any("at once" in line for lines in done.said.values() for line in lines)


def test_one_that_others_cannot_stand_in_for_waits_for_nobody() -> None:
    """It has a model of its own: whoever is out or is to come would not answer for it."""
    kinds = {"a:1": frozenset({"gpu1", "gpu2", "gpu4"}), "b:1": frozenset({"gpu3"})}
    gates = Gates({"gpu1", "gpu3"}, kinds=kinds)
    done = run(gates, fleet(kinds), hosts=("gpu3",), settled=())
    assert "gpu3" in done.restarted
    assert "no other host to send requests for b:1 to" in done.said["gpu3"][0]


def test_when_the_other_fails_the_last_of_its_kind_is_left() -> None:
    gates = Gates(set(NAMES), kinds=PAIRS)
    done = run(gates, fleet(PAIRS, gateway_roll_width=3), broken="gpu1")
    assert "gpu3" not in done.restarted
    assert "gpu1 failed before its turn came" in done.failed["gpu3"]
    assert "gpu3" in gates.served


def test_hosts_without_requests_wait_for_nobody() -> None:
    done = run(Gates({"gpu1"}), fleet(), hosts=("gpu2", "gpu3"))
    assert max(done.restarted.values()) == 2


def test_at_once_if_meant() -> None:
    gates = Gates(set(NAMES))
    done = run(gates, fleet(gateway_roll="at-once"))
    assert (max(done.restarted.values()), gates.most_out) == (4, 0)


def test_a_gateway_that_is_gone_is_named_and_hosts_come_in_turn() -> None:
    gates = Gates(set(NAMES), missing={"edge": "no connection"})
    done = run(gates, fleet())
    assert done.restarted == dict.fromkeys(NAMES, 1)
    assert "edge may go on to send it requests" in done.said["gpu4"][0]


def test_where_another_run_is_at_work_nobody_is_restarted() -> None:
    who = "edge: another deploy is at work there: by alice@desk, run 1 since today"
    done = run(Gates(set(NAMES), taken={"edge": who}), fleet())
    assert (done.restarted, set(done.failed)) == ({}, set(NAMES))
    assert who in done.failed["gpu1"]
    assert who in done.failed["gpu4"]
