"""What is on a host's disk, in one command for any number of files."""

from __future__ import annotations

from typing import NamedTuple

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override


class FileState(NamedTuple):
    """A regular file: SHA-256 of its content, octal mode, owner and group."""

    sha256: str
    mode: str
    user: str
    group: str


class FileStates(FactBase[dict[str, FileState]]):
    """Path to `FileState` for those of `paths` that are regular files and no links."""

    default = dict

    @override
    def command(self, paths: list[str]) -> StringCommand:
        return StringCommand(
            "for f in",
            *[QuoteString(path) for path in paths],
            '; do if [ -f "$f" ] && ! [ -L "$f" ]; then',
            'echo "$(sha256sum < "$f" | cut -c1-64) $(stat -c "%a %U %G %n" "$f")"; fi; done',
        )

    @override
    def process(self, output: list[str]) -> dict[str, FileState]:
        states = {}
        for line in output:
            sha256, mode, user, group, path = line.split(" ", 4)
            states[path] = FileState(sha256, mode, user, group)
        return states
