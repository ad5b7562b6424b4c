"""What the programs that run on hosts share: words, files, commands, a lock.

Every module of an `on_host` folder lies in one flat directory on a host and is found there by its
plain name: `from common import say`. It uses the standard library of Python 3.10, the modules of
its own folder, and those of this one. Product code may import one by its place in the tree
(`fleet.kit.on_host.common`) when it imports no other of them. docs/decisions/0015-host-programs.md
says why.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

# Exit status of a job that found its configuration replaced: EX_TEMPFAIL of sysexits.h.
TO_BE_STARTED_ANEW = 75
BLOCK = 1 << 20  # bytes of a file that are in memory at a time


class ProgramError(Exception):
    """What went wrong, worded for the operator."""


class CommandError(ProgramError):
    """A command ended with another status than 0."""


def say(text: str) -> None:
    """A line on standard output, at once: an answer, or progress of which the deploy shows the
    newest."""
    print(_plain(text), flush=True)  # noqa: T201 - the journal is where it goes


def log(text: str) -> None:
    """A line on standard error: what is no answer, so that an answer can be read by itself."""
    print(_plain(text), file=sys.stderr, flush=True)  # noqa: T201 - the journal is where it goes


def _plain(text: str) -> str:
    """Without what a terminal obeys: a container's log, or a model's answer, may be in it."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def size_text(count: float) -> str:
    """A number of bytes in the decimal unit that Ollama's own client uses."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def run(*words: str, cwd: Path | None = None, stdin: IO[bytes] | None = None) -> str:
    """Standard output of a command, as text.

    Raises:
        CommandError: with the last lines of what it said.
    """
    done = subprocess.run(words, cwd=cwd, stdin=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-6:]
        raise CommandError(f"{' '.join(words[:6])}: exit {done.returncode}: {' | '.join(said)}")
    return done.stdout


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Have the directory `path`, made with `mode`; parents that are missing are open to all.

    Whatever the umask is: others may keep their things below the same parents.
    """
    missing = [item for item in (path, *path.parents) if not item.exists()]
    for item in reversed(missing):
        item.mkdir(mode=0o700, exist_ok=True)
        item.chmod(mode if item == path else 0o755)


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """Have `text` in the file `path`: a reader, or a crash, finds the old or the new one whole."""
    make_directory(path.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sha256(path: Path, report: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file of any size; `report` is told the length of each part that was read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK * 4):
            digest.update(block)
            if report:
                report(len(block))
    return digest.hexdigest()


@contextlib.contextmanager
def locked(path: Path, waits: Callable[[], None] | None) -> Iterator[bool]:
    """Hold the lock of the file `path` meanwhile; whether it is held.

    When another process has it, `waits` is called and this waits; without `waits` it is not held.

    Raises:
        ProgramError: what lies there cannot be a lock.
    """
    try:
        # Neither a pipe's other end is waited for, nor a link followed.
        flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        raise ProgramError(f"{path} cannot be the lock: {error.strerror}; remove it") from None
    with os.fdopen(descriptor, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waits is None:
                yield False
                return
            waits()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield True
