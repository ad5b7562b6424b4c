"""What a deploy that is only planned would restart, as data.

Operations are planned one by one, before any of them is run: the one that writes a unit's file
notes it here, so that the one which runs the unit knows that there will be something new.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from weakref import WeakKeyDictionary

from pyinfra.api import Host
from pyinfra.context import ctx_host, ctx_state

Verb = Literal["restart", "reload", "stop", "reboot"]


HOST = "the host"


@dataclass(frozen=True)
class Restart:
    """A unit that runs, and that the deploy would `restart`, `reload` or `stop`; of a reboot, HOST.

    `because` are the files, or the units whose packages, would be new; empty when what runs is not
    what lies on the disk by now, whoever put it there.
    """

    unit: str
    verb: Verb
    because: tuple[str, ...] = ()


_WRITES: WeakKeyDictionary[Host, set[str]] = WeakKeyDictionary()
_RESTARTS: WeakKeyDictionary[Host, dict[str, Restart]] = WeakKeyDictionary()


def will_write(paths: Iterable[str]) -> None:
    """Note what an operation of the host would write, or the unit whose packages are new.

    Nothing is noted of an operation that is executed.
    """
    if _is_planning():
        _WRITES.setdefault(_here(), set()).update(paths)


def will_restart(restart: Restart) -> None:
    """Note what an operation of the host would do to a unit that runs; the hardest word counts."""
    if not _is_planning():
        return
    mine = _RESTARTS.setdefault(_here(), {})
    known = mine.get(restart.unit)
    if known is None or known.verb == "reload":
        mine[restart.unit] = restart


def written(paths: Iterable[str]) -> tuple[str, ...]:
    """Those of `paths` that an operation before this one would write on the host."""
    writes = _WRITES.get(_here(), set()) if _is_planning() else set()
    return tuple(path for path in dict.fromkeys(paths) if path in writes)


def restarts(host: Host) -> tuple[Restart, ...]:
    """What the deploy would restart on `host`, once that is planned; none in a run without a look.

    (`pyinfra --yes` plans nothing that it does not execute.)
    """
    return tuple(_RESTARTS.get(host, {}).values())


def _is_planning() -> bool:
    return not ctx_state.get().is_executing  # type: ignore[no-untyped-call]


def _here() -> Host:
    here: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    return here
