"""The newest backup in a directory."""

from __future__ import annotations

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override


class NewestBackup(FactBase[float | None]):
    """Age in seconds of the newest archive `<prefix>-*.tar` in `directory`; None without any.

    One from the future, made while the clock was wrong, is none.
    """

    @override
    @staticmethod
    def default() -> None:
        return None

    @override
    def command(self, directory: str, prefix: str) -> StringCommand:
        return StringCommand(
            "find", QuoteString(directory), "-maxdepth 1 -name", QuoteString(f"{prefix}-*.tar"),
            "-printf '%T@\\n'",
            "2>/dev/null; date +%s.%N",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> float | None:
        *made, now = map(float, output)
        return min((now - moment for moment in made if moment <= now), default=None)
