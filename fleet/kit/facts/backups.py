"""The newest backup in a directory."""

from __future__ import annotations

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override


class NewestBackup(FactBase[float | None]):
    """Age in seconds of the newest archive `<prefix>-*.tar` in `directory`; None without any."""

    @override
    @staticmethod
    def default() -> None:
        return None

    @override
    def command(self, directory: str, prefix: str) -> StringCommand:
        return StringCommand(
            "find", QuoteString(directory), "-maxdepth 1 -name", QuoteString(f"{prefix}-*.tar"),
            "-printf '%T@\\n'",
            "2>/dev/null | sort -n | tail -n 1; date +%s",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> float | None:
        *newest, now = output
        return float(now) - float(newest[0]) if newest else None
