"""What may follow what, and that a host of the version before is read right."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from dify_state import TRANSITIONS, Event, Phase, State, StateError, StateFile, parse
from tests.unit.dify.dify_host import NEW, NEWER, OLD, Host

# A line a phase, a column an event; "-" is refused.
TABLE = """
            STARTS     ANSWERS GIVEN_UP UPGRADE_BEGINS BACKED_UP TAKEN_DOWN PROVEN  RETURN_BEGINS RETURNED RESTORED
ABSENT      INSTALLING -       -        -              -         -          -       -             -        RUNNING
INSTALLING  -          RUNNING ABSENT   -              -         -          -       -             -        RUNNING
RUNNING     -          -       -        UPGRADING      -         -          -       -             -        RUNNING
UPGRADING   -          -       -        UPGRADING      UPGRADING REPLACED   -       -             RUNNING  RUNNING
REPLACED    -          -       -        -              -         -          RUNNING RETURNING     -        RUNNING
RETURNING   -          -       -        -              -         -          -       RETURNING     RUNNING  RUNNING
"""  # noqa: E501 - a table
_HEAD, *_ROWS = (line.split() for line in TABLE.strip().splitlines())
EXPECTED = {
    (Phase[row[0]], Event[event]): None if cell == "-" else Phase[cell]
    for row in _ROWS
    for event, cell in zip(_HEAD, row[1:], strict=True)
}


def test_table_has_every_pair() -> None:
    assert set(EXPECTED) == set(product(Phase, Event))
    assert set(TRANSITIONS) == {pair for pair, follows in EXPECTED.items() if follows}


@pytest.mark.parametrize(("phase", "event"), list(product(Phase, Event)))
def test_each_pair(phase: Phase, event: Event) -> None:
    follows = EXPECTED[phase, event]
    state = State(phase, OLD, to=NEW, backup="/a.tar", started={"api": ["1", "x"]})
    if follows is None:
        with pytest.raises(
            StateError, match=f"'{event.value}' cannot follow the state '{phase.value}'"
        ):
            state.after(event)
        return
    after = state.after(event)
    assert (after.phase, after.version, after.started) == (follows, OLD, state.started)
    under_way = follows in (Phase.UPGRADING, Phase.REPLACED, Phase.RETURNING)
    assert after.is_under_way == under_way
    # What an upgrade needs ends with it.
    assert (after.to, after.backup) == ((NEW, "/a.tar") if under_way else ("", ""))


@pytest.mark.parametrize("phase", Phase)
def test_what_is_written_is_read(tmp_path: Path, phase: Phase) -> None:
    file = StateFile(tmp_path / "state.json")
    assert file.now == State()
    file.now = State(phase, OLD, to=NEW, backup="/a.tar")
    file.note_started({"api": ["1", "x"]})
    assert StateFile(tmp_path / "state.json").now == file.now


STARTED = {"api": ["1", "x"]}
BEGUN = {"version": OLD, "started": STARTED, "under_way": "an upgrade", "to": NEW}
FORMER: list[tuple[dict[str, Any], State]] = [
    ({}, State()),
    ({"version": OLD, "installing": True}, State(Phase.INSTALLING, OLD)),
    (
        {"version": OLD, "installing": True, "started": STARTED},
        State(Phase.INSTALLING, OLD, started=STARTED),
    ),
    ({"version": OLD}, State(Phase.RUNNING, OLD)),
    ({"version": OLD, "started": STARTED}, State(Phase.RUNNING, OLD, started=STARTED)),
    (BEGUN, State(Phase.UPGRADING, OLD, to=NEW, started=STARTED)),
    (
        BEGUN | {"backup": "/a.tar"},
        State(Phase.UPGRADING, OLD, to=NEW, backup="/a.tar", started=STARTED),
    ),
    (
        BEGUN | {"backup": "/a.tar", "replaced": True},
        State(Phase.REPLACED, OLD, to=NEW, backup="/a.tar", started=STARTED),
    ),
    (
        BEGUN | {"backup": "/a.tar", "replaced": True, "returning": True},
        State(Phase.RETURNING, OLD, to=NEW, backup="/a.tar", started=STARTED),
    ),
]


@pytest.mark.parametrize(("written", "state"), FORMER)
def test_marks_of_the_version_before(written: dict[str, Any], state: State) -> None:
    assert parse(written) == state


class TestHostOfTheVersionBefore:
    """... that was cut off anywhere converges, whatever is declared then."""

    @pytest.mark.parametrize("declared", [OLD, NEW, NEWER])
    @pytest.mark.parametrize(
        "marks",
        [{}, {"backup": True}, {"backup": True, "replaced": True},
         {"backup": True, "replaced": True, "returning": True}],
        ids=["begun", "backed up", "replaced", "returning"],
    )  # fmt: skip
    def test_in_an_upgrade(self, host: Host, marks: dict[str, Any], declared: str) -> None:
        archive = str(host.stack(OLD).backups.make())
        if "replaced" in marks:
            host.tell(database="half of it")
        written = {"version": OLD, "started": {}, "under_way": "an upgrade", "to": NEW, **marks}
        written |= {"backup": archive} if "backup" in marks else {}
        (host.root / "state.json").write_text(json.dumps(written))
        assert host.stack(declared).pending() == ["an upgrade was cut off"]
        host.converge(declared)
        assert host.running == {declared}
        if marks.get("returning") or (marks.get("replaced") and declared != NEW):
            assert f" {OLD} work" in host.docker["database"]
        assert host.stack(declared).pending() == []

    def test_that_runs_is_left_alone(self, host: Host) -> None:
        now = json.loads((host.root / "state.json").read_text())
        written = {"version": OLD, "started": now["started"]}
        (host.root / "state.json").write_text(json.dumps(written))
        before = host.docker["containers"]
        assert host.stack(OLD).pending() == []
        host.converge(OLD)
        assert host.docker["containers"] == before

    def test_in_its_first_installation(self, host: Host) -> None:
        (host.root / "state.json").write_text(json.dumps({"version": OLD, "installing": True}))
        assert host.stack(OLD).pending() == ["the first installation was cut off"]
        host.converge(OLD)
        assert host.stack(OLD).pending() == []
