"""What of a footprint is on a host."""

from __future__ import annotations

from collections.abc import Iterable

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.facts.foreign import MARK
from fleet.kit.footprint import Part
from fleet.kit.render import host_program

_FIND = host_program("kit", "find-traces")


class Traces(FactBase[dict[int, list[str]]]):
    """Place in the list of parts to what is there of it and is ours; nothing else is told.

    `parts` are `asked(...)` of them.
    """

    default = dict

    @override
    def command(self, parts: list[str]) -> StringCommand:
        return StringCommand(
            "sh -c", QuoteString(_FIND), "find-traces", QuoteString(MARK), *map(QuoteString, parts)
        )

    @override
    def process(self, output: list[str]) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for line in output:
            index, _, name = line.partition("|")
            found.setdefault(int(index), []).append(name)
        return found


def asked(parts: Iterable[Part]) -> list[str]:
    """`parts` as the fact is asked for them: three words each."""
    return [text for part in parts for text in (part.kind, part.name, part.sign)]
