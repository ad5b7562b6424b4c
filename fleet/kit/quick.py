"""What pyinfra asks itself at each operation, answered the same in a tenth of the time."""

from __future__ import annotations

import sys
from functools import cache
from traceback import walk_stack
from types import FrameType, SimpleNamespace

import pyinfra.api.arguments
import pyinfra.api.connectors
import pyinfra.api.inventory
import pyinfra.api.util


def be_quick() -> None:
    """Plan without reading the source of every frame that stands below an operation.

    pyinfra orders operations by the line numbers of the frames that call them. For these it makes a
    whole traceback each time, lines of source included; and it finds its connectors, and the types
    of its own arguments, anew. Of the time that a plan took, that was nine tenths.
    """
    pyinfra.api.util.stack = _frames  # type: ignore[assignment]
    pyinfra.api.util.getframeinfo = _place  # type: ignore[assignment]
    for module, name in (
        (pyinfra.api.arguments, "get_type_hints"),
        (pyinfra.api.connectors, "get_all_connectors"),
        (pyinfra.api.inventory, "get_all_connectors"),
    ):
        if not hasattr(known := getattr(module, name), "cache_info"):
            setattr(module, name, cache(known))


def _frames() -> list[tuple[FrameType]]:
    return [(frame,) for frame, _ in walk_stack(sys._getframe(1))]


def _place(frame: FrameType) -> SimpleNamespace:
    return SimpleNamespace(filename=frame.f_code.co_filename, lineno=frame.f_lineno)
