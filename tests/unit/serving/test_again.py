"""Who gets requests again before anybody is interrupted. Real hosts are in tests/lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.api import State
from pyinfra.context import ctx_host, ctx_state

import fleet.serving.again as module
from fleet.declare.fleet import FleetHost
from fleet.gateway.front import Front
from fleet.models.facts import ModelsCheck, ModelsState
from fleet.ollama.facts import OllamaServers, Servers
from fleet.serving.facts import ServersThere
from fleet.serving.turn import Roll
from tests.fleets import EDGE, GPU, fleet_of
from tests.unit.serving.test_turn import NAMES, Gates, fleet

pytestmark = pytest.mark.usefixtures("own_secrets")

_WELL = ModelsCheck(True, ("a", "b"))
_UNIT = "ollama.service"


class Here:
    """A host that tells what it has; what is run there ends as `ends` says."""

    def __init__(
        self, check: ModelsCheck = _WELL, *, runs: bool = True, bare: bool = False
    ) -> None:
        self.check, self.runs, self.bare = check, runs, bare
        self.said: list[str] = []

    def log(self, text: str, **_: Any) -> None:
        """Keep what an operator reads."""
        self.said.append(text)

    noop = log

    def get_fact(self, fact: type, **_: Any) -> Any:
        """What the steps ask of it."""
        units = (_UNIT,) if self.runs else ()
        paths = () if self.bare else (f"/etc/systemd/system/{_UNIT}",)
        facts: dict[type, Any] = {
            ServersThere: units, ModelsState: self.check, OllamaServers: Servers(paths, units),
        }  # fmt: skip
        return facts[fact]


class Run:
    """A run of pyinfra's over hosts."""

    is_executing = True

    def __init__(self, **hosts: Here) -> None:
        self.hosts, self.failed_hosts = hosts, set[Here]()
        self.inventory = SimpleNamespace(get_host=hosts.__getitem__)


@pytest.fixture
def chats(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The first model that a host is asked by, to why that fails."""
    wrong: dict[str, str] = {}
    monkeypatch.setattr(module, "chats", lambda _, model: iter([model]))
    monkeypatch.setattr(module, "judge_placement", SimpleNamespace(_inner=lambda **_: iter(())))

    def carry_out(_run: Any, _here: Any, commands: Iterator[str]) -> str:
        return next((wrong[model] for model in commands if model in wrong), "")

    monkeypatch.setattr(module, "carry_out", carry_out)
    return wrong


def roll_of(gates: Gates) -> Roll:
    declared = fleet()
    return Roll(cast("Front", gates), declared, [declared[name] for name in NAMES[:2]])


def executed(run: Run, roll: Roll, name: str, step: Any) -> list[str]:
    declared = fleet()
    with (
        pytest.MonkeyPatch.context() as patch,
        ctx_state.use(run),
        ctx_host.use(run.hosts[name]),
    ):
        patch.setattr(module, "roll_of", lambda _: roll)
        return [str(command) for command in step._inner(me=declared[name], fleet=declared)]


def why(run: Run, gates: Gates, name: str = "gpu1") -> str:
    return module.why_not_ready(cast("State", run), roll_of(gates), fleet()[name])


_LACKS = ModelsCheck(True, ("a", "b"), {"b": "not present"})


@pytest.mark.parametrize(
    ("here", "other", "served", "says"),
    [
        (Here(), Here(), {"gpu2"}, ""),
        (Here(runs=False), Here(), {"gpu2"}, f"{_UNIT} does not answer"),
        (Here(ModelsCheck(why="no loader")), Here(), {"gpu2"}, "no loader"),
        (Here(_LACKS), Here(), {"gpu2"}, "b is not there yet"),
        (Here(_LACKS), Here(_LACKS), {"gpu2"}, ""),
        (Here(_LACKS), Here(), set[str](), "b is not there yet"),
        (Here(_LACKS), Here(_LACKS), {"gpu2", "gpu3"}, "b is not there yet"),
    ],
    ids=[
        "well", "stopped", "not known", "lacks what is served", "lacks what nobody has",
        "nobody serves", "one that serves is not of the run",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("chats")
def test_who_may_get_requests(here: Here, other: Here, served: set[str], says: str) -> None:
    assert why(Run(gpu1=here, gpu2=other), Gates(served)) == says


def test_a_chat_that_fails_says_why(chats: dict[str, str]) -> None:
    chats["a"] = "does not answer"
    assert why(Run(gpu1=Here(), gpu2=Here()), Gates({"gpu2"})) == "does not answer"


@pytest.mark.usefixtures("chats")
def test_the_first_step_lets_in_whoever_answers_of_the_run() -> None:
    """With --serial it is the only one that is executed before another host's turn."""
    gates = Gates({"gpu2"})
    run, roll = Run(gpu1=Here(), gpu2=Here()), roll_of(gates)
    assert executed(run, roll, "gpu2", module.let_back_in) == []
    assert gates.served == {"gpu1", "gpu2"}
    assert len(executed(run, roll, "gpu1", module.let_back_in)) == 1


@pytest.mark.parametrize("how", ["failed before", "does not answer"])
@pytest.mark.usefixtures("chats")
def test_one_that_is_not_ready_stays_out(how: str) -> None:
    gates = Gates({"gpu2"})
    run = Run(gpu1=Here(runs=how == "failed before"), gpu2=Here())
    if how == "failed before":
        run.failed_hosts.add(run.hosts["gpu1"])
    roll = roll_of(gates)
    executed(run, roll, "gpu2", module.let_back_in)
    assert gates.served == {"gpu2"}
    assert roll.coming() == {"gpu1"}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done to a host's servers."""
    done: list[str] = []

    def note(what: str) -> Callable[..., Iterator[str]]:
        def commands(me: FleetHost, *_: Any) -> Iterator[str]:
            run = cast("Run", ctx_state.get())  # type: ignore[no-untyped-call]
            done.append(what)
            run.hosts[me.name].runs = True
            yield what

        return commands

    for name in ("replace", "start"):
        monkeypatch.setattr(module, name, note(name))
    for name in ("lay_down", "answers"):
        monkeypatch.setattr(module, name, lambda *_: iter(()))
    monkeypatch.setattr(module, "interrupted", lambda *_: [])
    return done


@pytest.mark.usefixtures("chats")
def test_a_server_that_had_stopped_is_started_while_another_serves(started: list[str]) -> None:
    gates = Gates({"gpu1", "gpu2"})
    run, roll = Run(gpu1=Here(runs=False), gpu2=Here()), roll_of(gates)
    executed(run, roll, "gpu1", module.start_who_is_out)
    assert started == ["start"]
    assert (gates.most_out, gates.served) == (1, {"gpu1", "gpu2"})
    assert "gpu1" in roll.settled


@pytest.mark.usefixtures("chats")
def test_what_runs_otherwise_is_replaced_where_nobody_asks_it(
    monkeypatch: pytest.MonkeyPatch, started: list[str]
) -> None:
    monkeypatch.setattr(module, "interrupted", lambda *_: [_UNIT])
    gates = Gates({"gpu2"})
    run, roll = Run(gpu1=Here(), gpu2=Here()), roll_of(gates)
    executed(run, roll, "gpu1", module.start_who_is_out)
    executed(run, roll, "gpu2", module.start_who_is_out)
    assert (started, gates.served) == (["replace"], {"gpu1", "gpu2"})


@pytest.mark.parametrize("does", ["is replaced", "is left"])
def test_what_was_only_just_started_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, started: list[str], chats: dict[str, str], does: str
) -> None:
    """Its model is not in memory yet, or the machine is busy; others are to be restarted."""
    monkeypatch.setattr(module, "interrupted", lambda *_: [_UNIT] if does == "is replaced" else [])
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            chats.clear()

    monkeypatch.setattr(module.gevent, "sleep", sleep)
    chats["a"] = "no answer within 60 s"
    gates = Gates({"gpu2"})
    executed(Run(gpu1=Here(), gpu2=Here()), roll_of(gates), "gpu1", module.start_who_is_out)
    assert (len(looks), gates.served) == (3, {"gpu1", "gpu2"})
    assert started == (["replace"] if does == "is replaced" else [])


@pytest.mark.parametrize(
    ("here", "served"),
    [(Here(runs=False, bare=True), {"gpu2"}), (Here(runs=False), set[str]())],
    ids=["new", "nobody serves"],
)
@pytest.mark.usefixtures("chats")
def test_the_rest_is_for_the_steps_that_follow(
    started: list[str], here: Here, served: set[str]
) -> None:
    gates = Gates(set(served))
    roll = roll_of(gates)
    executed(Run(gpu1=here, gpu2=Here()), roll, "gpu1", module.start_who_is_out)
    assert (started, gates.served) == ([], served)
    assert "gpu1" in roll.settled


def test_nobody_is_waited_for_that_an_operator_has_drained() -> None:
    """It gets no requests, and will not by a deploy."""
    declared = fleet_of({"gpu1": GPU, "edge": EDGE})
    door = SimpleNamespace(serves_wholly=lambda _: False, drained=frozenset({"gpu1"}))
    front = cast("Any", Front.__new__(Front))
    front.doors = [door]
    assert not front.leaves_out(declared["gpu1"])
    door.drained = frozenset()
    assert front.leaves_out(declared["gpu1"])
