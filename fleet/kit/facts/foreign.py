"""What a host is before this project changes it."""

from __future__ import annotations

from pyinfra.api import FactBase, StringCommand
from typing_extensions import override

MARK = "Managed by llm-fleet"


class ForeignFiles(FactBase[list[str]]):
    """Those files that match the shell `patterns` and were not written by this project."""

    default = list

    @override
    def command(self, patterns: list[str]) -> StringCommand:
        return StringCommand(
            "for f in", *patterns, "; do",
            '[ -f "$f" ] && ! grep -q', f"'{MARK}'", '"$f" && echo "$f"; done; true',
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> list[str]:
        return output
