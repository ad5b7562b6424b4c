"""What a capability tells of a host that runs: for `fleet status`, which knows none by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyinfra.api import StringCommand

# Whatever ends within so many days is told of.
ENDS_SOON = 14


@dataclass(frozen=True)
class Told:
    """A part of what is told of one host, which is the host that was asked, or `about`.

    `text` is it in few words for the table, and may be empty; `values` is it for programs, below
    the capability's name. `problem` is a sentence with the fix when it is not as it should be.
    """

    text: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""
    about: str | None = None


@dataclass(frozen=True)
class Look:
    """Questions to a host, which is asked all of all capabilities by one command.

    Each of `commands` reads only, ends within seconds, and writes plain text, of which the
    beginning comes back. `tell` gets the lines of each, and reads them by the rules of
    `fleet.kit.on_host.outside`: what another program wrote may have any form.
    """

    commands: tuple[StringCommand, ...]
    tell: Callable[[list[list[str]]], Iterable[Told]]
