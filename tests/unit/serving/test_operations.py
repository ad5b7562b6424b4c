"""What lets a host in, by what its gateways say. Real ones are in tests/lab."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.context import ctx_host, ctx_state

import fleet.serving.operations as module
from fleet.models.facts import ModelsCheck, ModelsState
from fleet.serving.facts import ServersThere
from tests.fleets import EDGE, GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")

AT_WORK = "edge: another deploy is at work there: by alice@desk, run 1 since today"


class Front:
    """Gateways: those that are told, and those that are not."""

    def __init__(self, doors: int, missing: str = "", taken: str = "") -> None:
        self.doors = [SimpleNamespace(me=SimpleNamespace(name=f"door{n}")) for n in range(doors)]
        self.bare: list[Any] = []
        self.missing = {"edge": missing} if missing else {}
        self.taken = {"edge": taken} if taken else {}
        self.changes: list[Any] = []
        self.change = self.changes.append
        self.look_again = lambda: None
        self.serves_wholly = lambda _: False


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What an operator reads of a step that is executed."""
    lines: list[str] = []
    told = SimpleNamespace(log=lambda text, **_: lines.append(text), noop=lines.append)

    class State:
        """As pyinfra's, to be kept by weak reference."""

        is_executing = True
        inventory = SimpleNamespace(get_override_data=dict)

    with ctx_host.use(told), ctx_state.use(State()):
        yield lines


@pytest.mark.parametrize(
    ("front", "fails", "told"),
    [
        (Front(1), "", 1),
        (Front(1, missing="no connection"), "", 1),
        (Front(0, missing="no connection"), "no gateway could be told", 0),
        (Front(1, taken=AT_WORK), AT_WORK, 1),
        (Front(0, taken=AT_WORK), AT_WORK, 0),
        (Front(0), "", 0),
    ],
    ids=["all", "one missing", "all missing", "another run at one", "at all", "none"],
)
def test_who_is_told(
    monkeypatch: pytest.MonkeyPatch, said: list[str], front: Front, fails: str, told: int
) -> None:
    fleet = fleet_of({"gpu1": GPU, "edge": EDGE})
    monkeypatch.setattr(module, "roll_of", lambda _: SimpleNamespace(front=front))
    monkeypatch.setattr(module, "models_of", lambda _: ModelsCheck(True, ("m",)))
    monkeypatch.setattr(module, "chats", lambda _, model: iter(()))
    lines = [
        command.get_raw_value() for command in module.let_in._inner(me=fleet["gpu1"], fleet=fleet)
    ]
    failed = [line for line in lines if line.endswith("exit 1")]
    assert len(front.changes) == told
    assert bool(failed) is bool(fails)
    assert fails in "".join(failed)
    assert [line for line in said if "was not told" in line] == [
        f"edge was not told that it is ready: {why}" for why in front.missing.values()
    ]


@pytest.mark.parametrize(
    ("step", "given"),
    [
        ("roll_too_early", {}),
        ("roll_docker", {}),
        ("roll_reboot", {"policy": "one-at-a-time", "timeout": 1.0}),
    ],
)
def test_what_comes_later_in_the_deploy_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, step: str, given: dict[str, Any]
) -> None:
    """These steps come before the units are laid down: a new server starts after them."""
    two = [
        {"name": "a", "port": 11434, "gpus": [0]},
        {"name": "b", "port": 11435, "gpus": [1], "runtime": "docker"},
    ]
    docker = {"docker_enabled": True, "ollama_image": f"ollama/ollama:0.32.7@sha256:{'ab' * 32}"}
    fleet = fleet_of({"gpu1": ("gpu", {**GPU[1], **docker, "ollama_instances": two}), "edge": EDGE})
    me = fleet["gpu1"]
    nothing = SimpleNamespace(_inner=lambda **_: iter(()))
    for name in ("restart_too_early", "run_unit", "reboot_into_driver"):
        monkeypatch.setattr(module, name, nothing)
    monkeypatch.setattr(module, "too_early", lambda *_: ["a"])
    monkeypatch.setattr(module, "next_verb", lambda *_: "restart")
    monkeypatch.setattr(module, "roll_of", lambda _: None)
    turn = SimpleNamespace(is_out=True)
    monkeypatch.setattr(module, "in_turn", lambda _roll, _me, work: work(turn))
    now = SimpleNamespace(is_active=True, needs_reboot=True)
    facts: dict[type, Any] = {
        ServersThere: ("ollama@a.service",),
        ModelsState: ModelsCheck(True),
    }
    host = SimpleNamespace(get_fact=lambda fact, **_: facts.get(fact, now), noop=print)
    with ctx_host.use(host), ctx_state.use(SimpleNamespace(is_executing=True)):
        commands = getattr(module, step)._inner(me=me, fleet=fleet, **given)
        said = [command.get_raw_value() for command in commands]
    assert len(said) == 1
    assert ":11434/api/version" in said[0]
