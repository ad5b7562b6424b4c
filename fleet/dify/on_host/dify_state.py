"""Where Dify's stack on this host is between nothing and running, written down at each step.

One table says what may follow what. A run that is killed at any point leaves the phase that it was
in, and the next one goes on from there.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from common import ProgramError, write

Started = dict[str, list[str]]  # service to the identity of the container that was started


class Phase(str, Enum):
    """What there is of Dify."""

    ABSENT = "absent"
    INSTALLING = "installing"  # for the first time, and it has not answered yet
    RUNNING = "running"
    UPGRADING = "upgrading"  # the former release is whole: no other has touched its data
    REPLACED = "replaced"  # the data may be of the new release; the former's are in the backup
    RETURNING = "returning"  # the backup is being put back: the data are of neither


class Event(str, Enum):
    """What leads from one phase to another."""

    STARTS = "starts"  # a first installation: from here on there may be a database
    ANSWERS = "answers"
    GIVEN_UP = "given up"
    UPGRADE_BEGINS = "upgrade begins"
    BACKED_UP = "backed up"
    TAKEN_DOWN = "taken down"
    PROVEN = "proven"
    RETURN_BEGINS = "return begins"
    RETURNED = "returned"
    RESTORED = "restored"


TRANSITIONS: dict[tuple[Phase, Event], Phase] = {
    (Phase.ABSENT, Event.STARTS): Phase.INSTALLING,
    (Phase.INSTALLING, Event.ANSWERS): Phase.RUNNING,
    (Phase.INSTALLING, Event.GIVEN_UP): Phase.ABSENT,
    (Phase.RUNNING, Event.UPGRADE_BEGINS): Phase.UPGRADING,
    (Phase.UPGRADING, Event.UPGRADE_BEGINS): Phase.UPGRADING,  # cut off, and begun anew
    (Phase.UPGRADING, Event.BACKED_UP): Phase.UPGRADING,
    (Phase.UPGRADING, Event.TAKEN_DOWN): Phase.REPLACED,
    (Phase.UPGRADING, Event.RETURNED): Phase.RUNNING,
    (Phase.REPLACED, Event.PROVEN): Phase.RUNNING,
    (Phase.REPLACED, Event.RETURN_BEGINS): Phase.RETURNING,
    (Phase.RETURNING, Event.RETURN_BEGINS): Phase.RETURNING,  # cut off, and done again
    (Phase.RETURNING, Event.RETURNED): Phase.RUNNING,
    # A backup is put back whatever there was before.
    **{(phase, Event.RESTORED): Phase.RUNNING for phase in Phase},
}
_UNDER_WAY = (Phase.UPGRADING, Phase.REPLACED, Phase.RETURNING)


class StateError(ProgramError):
    """Something happened that cannot happen in this phase."""


@dataclass(frozen=True)
class State:
    """What is known of Dify on this host.

    `version` is what runs, or ran before an upgrade `to` another that is under way; `backup` is
    the archive that a return would put back.
    """

    phase: Phase = Phase.ABSENT
    version: str = ""
    to: str = ""
    backup: str = ""
    started: Started = field(default_factory=dict)

    @property
    def is_under_way(self) -> bool:
        """Whether an upgrade has begun and not ended."""
        return self.phase in _UNDER_WAY

    def after(self, event: Event, **changes: Any) -> State:
        """The state that follows `event`, with other fields changed.

        Raises:
            StateError: the table has no such transition.
        """
        follows = TRANSITIONS.get((self.phase, event))
        if follows is None:
            raise StateError(f"'{event.value}' cannot follow the state '{self.phase.value}'")
        if follows not in _UNDER_WAY:
            changes = {"to": "", "backup": "", **changes}
        return replace(self, phase=follows, **changes)


def parse(value: dict[str, Any]) -> State:
    """A state as it was written; before phases had a name, marks beside the version told them."""
    if "phase" in value:
        return State(**{**value, "phase": Phase(value["phase"])})
    known = {key: value[key] for key in ("version", "to", "backup", "started") if key in value}
    return State(phase=_former_phase(value), **known)


def _former_phase(value: dict[str, Any]) -> Phase:
    marks = {
        "returning": Phase.RETURNING,
        "replaced": Phase.REPLACED,
        "under_way": Phase.UPGRADING,
        "installing": Phase.INSTALLING,
        "version": Phase.RUNNING,
    }
    return next((phase for mark, phase in marks.items() if value.get(mark)), Phase.ABSENT)


class StateFile:
    """The state, and the file in which it outlives a run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.now = parse(json.loads(path.read_text()))
        except FileNotFoundError:
            self.now = State()

    def tell(self, event: Event, **changes: Any) -> None:
        """Have what follows `event` on the disk. Raises StateError as `State.after` does."""
        self._keep(self.now.after(event, **changes))

    def note_started(self, started: Started) -> None:
        """Remember which containers were started from what is declared."""
        self._keep(replace(self.now, started=started))

    def _keep(self, state: State) -> None:
        self.now = state
        write(self._path, json.dumps(asdict(state)))
