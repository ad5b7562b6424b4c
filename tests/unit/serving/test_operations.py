"""What lets a host in, by what its gateways say. Real ones are in tests/lab."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.context import ctx_host, ctx_state

import fleet.serving.operations as module
from fleet.models.facts import ModelsCheck
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
