"""Files that are judged by the tool that reads them before they replace what is there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import SecretStr
from pyinfra import host, logger, state
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.facts.files import FileContents
from pyinfra.operations.util.files import generate_color_diff

from fleet.kit.commands import Commands
from fleet.kit.facts.files import FileState, FileStates
from fleet.kit.paths import RUN, STAGE
from fleet.kit.planned import will_write


@dataclass(frozen=True)
class ManagedFile:
    """A file's whole content and its place. A secret content shows up in no output."""

    path: str
    content: str | SecretStr
    mode: str = "644"
    user: str = "root"
    group: str = "root"

    @property
    def text(self) -> str:
        """The content itself."""
        return self.content if isinstance(self.content, str) else self.content.get_secret_value()

    @property
    def state(self) -> FileState:
        """What `FileStates` says of this file once it is in place."""
        sha256 = hashlib.sha256(self.text.encode()).hexdigest()
        return FileState(sha256, self.mode, self.user, self.group)

    @property
    def staged_name(self) -> str:
        """Its name in the stage, where all files of one call lie side by side."""
        return PurePosixPath(self.path).name


@operation()
def install_files(
    files: list[ManagedFile], check: StringCommand | None = None, stage: str = STAGE
) -> Commands:
    """Put `files` in place, together or not at all when `check` refuses them.

    All files are laid side by side in a private directory, in which `check` runs; only when it
    accepts them are the changed ones renamed over what was there, what refers to another after
    that one. A run that dies in between leaves each file either old or new, never half, and the
    next run finishes the job. `stage` is that directory: another one where two steps of a run may
    be at work on a host at once.
    """
    if len({file.staged_name for file in files}) != len(files):
        raise ValueError("two files of one name would be one in the stage")
    current = host.get_fact(FileStates, paths=[file.path for file in files])
    changed = [file for file in files if current.get(file.path) != file.state]
    if not changed:
        host.noop(f"{', '.join(file.path for file in files)} as declared")
        return
    will_write(file.path for file in changed)
    if state.config.DIFF:
        for file in changed:
            show_diff(file)
    yield StringCommand("rm -rf", stage, "&& install -d -m 700", RUN, stage)
    for file in files:
        # On stdin: neither argv nor a world-readable temporary file ever holds the content.
        yield StringCommand(
            "cat >",
            QuoteString(f"{stage}/{file.staged_name}"),
            _stdin=file.text.removesuffix("\n").split("\n"),
        )
    if check:
        yield StringCommand("cd", stage, "&&", check)
    for file in changed:
        new = QuoteString(f"{file.path}.new")
        yield StringCommand(
            f"install -D -o {file.user} -g {file.group} -m {file.mode}",
            QuoteString(f"{stage}/{file.staged_name}"),
            new,
            # Half of it, on a disk that is full.
            StringCommand("|| { rm -f", new, "; exit 1; }"),
        )
    # In one command: no cut connection and no killed deploy comes between two of them.
    yield StringCommand(*[_put(file) for file in referred_first(changed)], _separator=" && ")
    yield StringCommand("rm -rf", stage)


def referred_first(files: list[ManagedFile]) -> list[ManagedFile]:
    """`files`, each after those of them that its text names, by path or by name."""
    ordered: list[ManagedFile] = []
    seen: set[str] = set()

    def place(file: ManagedFile) -> None:
        if file.path in seen:
            return
        seen.add(file.path)
        for other in files:
            if other.path in file.text or other.staged_name in file.text:
                place(other)
        ordered.append(file)

    for file in files:
        place(file)
    return ordered


def _put(file: ManagedFile) -> StringCommand:
    """Rename the new file over what is there; a directory that is in its place goes aside."""
    path = QuoteString(file.path)
    return StringCommand(
        "{ [ -L", path, "] || ! [ -d", path, "] || mv -T", path,
        StringCommand('"$(mktemp -d', QuoteString(f"{file.path}.found.XXXXXX"), ')"'),
        "; } && mv -fT", QuoteString(f"{file.path}.new"), path,
    )  # fmt: skip


def show_diff(file: ManagedFile) -> None:
    """Say how `file` would change what is on the host, but for a secret content."""
    if isinstance(file.content, SecretStr):
        host.log(f"Will modify {file.path} (secret, content not shown)")
        return
    host.log(f"Will modify {file.path}")
    before = [f"{line}\n" for line in host.get_fact(FileContents, path=file.path) or []]
    for line in generate_color_diff(before, file.text.splitlines(keepends=True)):
        logger.info("  %s", line)
