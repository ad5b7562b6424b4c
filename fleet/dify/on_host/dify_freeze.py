"""Who may change Dify just now, and whether a backup has paused it.

Both are files beside Dify's data: a lock that ends with its holder, and a mark that does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import common

# A check waits so long for a backup to let go of Dify.
_FREEZE = 900


def locked(root: Path, *, wait: bool = True) -> AbstractContextManager[bool]:
    """One change at a time: a backup by the timer waits for a deploy, and the other way round.

    Gives whether the lock is held, which it is unless another has it and this does not `wait`.
    """

    def waits() -> None:
        common.say("waiting for the end of a backup, or of another change")

    common.make_directory(root, 0o700)
    return common.locked(root / ".lock", waits if wait else None)


def mark(root: Path) -> Path:
    """The file that is there while containers are paused."""
    return root / ".frozen"


def is_frozen(root: Path) -> bool:
    """Whether a backup that is at work has paused Dify."""
    if not mark(root).exists():
        return False
    with contextlib.suppress(FileNotFoundError), (root / ".lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    # What a killed one left frozen is to be reported.
    return False


def unfrozen(root: Path, look: Callable[[], list[str]]) -> list[str]:
    """What `look` finds when no backup makes it look so."""
    deadline = time.monotonic() + _FREEZE
    while time.monotonic() < deadline:
        if not is_frozen(root):
            reasons = look()
            if not reasons or not is_frozen(root):
                return reasons
        time.sleep(1)
    return [f"a backup has kept Dify paused for more than {_FREEZE // 60} minutes"]
