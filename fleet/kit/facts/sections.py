"""Many questions to a host as one: a command, and so one way there and back."""

from __future__ import annotations

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

MOST = 262_144  # bytes that come back of each
LONGEST = 4  # seconds that each may take


class Sections(FactBase[list[list[str]]]):
    """The lines that each of `commands` writes to standard output, in their order.

    What one writes is bounded in size and in time, and what it says besides is dropped. `mark` is
    a line that none of them can know: what they print may be of anybody's making.
    """

    default = list

    @override
    def command(self, commands: list[StringCommand], mark: str) -> StringCommand:
        line = StringCommand("echo", QuoteString(mark))
        parts: list[StringCommand | QuoteString | str] = [line]
        for item in commands:
            parts += [
                f"; timeout -k 1 {LONGEST} sh -c",
                QuoteString(item.get_raw_value()),
                f"2>/dev/null </dev/null | head -c {MOST}; echo;",
                line,
            ]
        return StringCommand(*parts)

    @override
    def process(self, output: list[str]) -> list[list[str]]:
        mark = output[0]
        found: list[list[str]] = [[]]
        for line in output[1:]:
            if line == mark:
                found.append([])
            else:
                found[-1].append(line)
        # What ends with a line feed has an empty line more.
        return [lines[:-1] if lines[-1:] == [""] else lines for lines in found[:-1]]
