"""Where the secrets of one inventory lie: plain files, files encrypted with age, or a command.

What a secret is, and who may make one, is told in `fleet/kit/secrets.py`.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from fleet.kit import age
from fleet.kit.errors import FleetError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]*")
RECIPIENTS = "recipients.txt"
_WAIT = 10.0  # seconds for another command that writes
_ANSWER = 120.0  # seconds for a command that gives secrets


class Storage(Protocol):
    """Values by name. `root` says where they are; `kind` how, in an operator's words."""

    root: Path
    kind: str

    def place(self, name: str) -> Path:
        """What an operator looks at for the secret `name`."""

    def names(self) -> tuple[str, ...]:
        """Every secret that is there, sorted."""

    def read(self, name: str) -> str | None:
        """The value of `name` without space around it, or None when there is none."""

    def expect(self, name: str) -> None:
        """Refuse what would be refused when `name` is written."""

    def write(self, name: str, value: str) -> None:
        """Have `value` as `name`, whatever it was before."""

    def keep(self, name: str, value: str) -> str:
        """Have `value` as `name` unless there is one; the value that counts from now on."""

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else of this machine writes meanwhile."""

    def clear(self, names: Iterable[str]) -> tuple[str, ...]:
        """Remove the secrets `names`, and what tells of a store without any; which files stay."""


class PlainFiles:
    """A directory of mode 0700 with one file of mode 0600 a secret."""

    kind = "plain files"
    _suffix = ""
    _mode = 0o700

    def __init__(self, root: Path) -> None:
        self.root = root
        self._is_locked = False

    def place(self, name: str) -> Path:
        return self.root / f"{name}{self._suffix}"

    def names(self) -> tuple[str, ...]:
        files = self.root.glob(f"*{self._suffix}") if self.root.is_dir() else ()
        names = [path.name.removesuffix(self._suffix) for path in files if path.is_file()]
        return tuple(sorted(name for name in names if NAME.fullmatch(name)))

    def read(self, name: str) -> str | None:
        path = self.place(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FleetError(f"{path}: {error.strerror}") from None
        value = self._decoded(path, content).strip()
        if not value:
            raise FleetError(f"{path}: empty secret; delete the file to have one generated")
        return value

    def expect(self, name: str) -> None:
        return

    def write(self, name: str, value: str) -> None:
        with self.locked(), self._temporary(name, value) as temporary:
            temporary.rename(self.place(name))

    def keep(self, name: str, value: str) -> str:
        # Whoever moves secrets is not to miss this one: without a directory nobody can wait.
        self.root.mkdir(mode=self._mode, parents=True, exist_ok=True)
        with self.locked(), self._temporary(name, value) as temporary:
            try:
                # Fails when another deploy was first: its value counts.
                os.link(temporary, self.place(name))
            except FileExistsError:
                kept = self.read(name)
                if kept is None:
                    raise FleetError(
                        f"{self.place(name)}: removed while it was read; run again"
                    ) from None
                return kept
        return value.strip()

    @contextmanager
    def locked(self) -> Iterator[None]:
        if self._is_locked or not self.root.is_dir():
            yield
            return
        descriptor = os.open(self.root, os.O_RDONLY)
        try:
            self._wait_for(descriptor)
            if not os.fstat(descriptor).st_nlink:
                raise FleetError(
                    f"{self.root}: another command has moved these secrets meanwhile; run again"
                )
            self._is_locked = True
            yield
        finally:
            self._is_locked = False
            os.close(descriptor)

    def clear(self, names: Iterable[str]) -> tuple[str, ...]:
        if not self.root.is_dir():
            return ()
        with self.locked():
            for name in names:
                self.place(name).unlink(missing_ok=True)
                # What a run that was killed while it wrote the secret left: nobody else writes.
                cut_short = re.compile(re.escape(f".{name}.") + "[a-z0-9_]{8}")
                for path in self.root.iterdir():
                    if cut_short.fullmatch(path.name):
                        path.unlink()
            if not self.names():
                self._forget()
            # Below it may be the store of an inventory in a folder of this one's name.
            left = tuple(sorted(path.name for path in self.root.iterdir() if path.is_file()))
            if not any(self.root.iterdir()):
                self.root.rmdir()
        return left

    def _forget(self) -> None:
        """Remove what is there beside secrets, and of no use without one."""

    def _encoded(self, value: str) -> bytes:
        return value.encode()

    def _decoded(self, path: Path, content: bytes) -> str:
        if path.stat().st_mode & 0o077:
            raise FleetError(f"{path}: other users can read this secret; run chmod 600 {path}")
        try:
            return content.decode()
        except UnicodeDecodeError:
            raise FleetError(f"{path}: not text; put the secret there as text") from None

    @contextmanager
    def _temporary(self, name: str, value: str) -> Iterator[Path]:
        """A file in the store that holds what is to be the file of `name`; gone afterwards."""
        content = self._encoded(value.rstrip("\n") + "\n")
        self.root.mkdir(mode=self._mode, parents=True, exist_ok=True)
        # mkstemp makes the file 0600.
        descriptor, temporary = tempfile.mkstemp(dir=self.root, prefix=f".{name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield Path(temporary)
            _sync(self.root)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _wait_for(self, descriptor: int) -> None:
        end = time.monotonic() + _WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise FleetError(
                        f"{self.root}: another command has been changing these secrets for "
                        f"{_WAIT:.0f} seconds; run again when it has ended"
                    ) from None
                time.sleep(0.05)
            else:
                return


class AgeFiles(PlainFiles):
    """One file a secret, encrypted to everyone in `recipients.txt` there; made to be committed."""

    kind = "files encrypted with age"
    _suffix = ".age"
    _mode = 0o755

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._identities: age.Identities | None = None

    @property
    def recipients(self) -> Path:
        """Who can decrypt, a line each; the file is committed with the secrets."""
        return self.root / RECIPIENTS

    def rekey(self) -> int:
        """Encrypt everything to the present recipients; how many secrets that were."""
        with self.locked():
            names = self.names()
            for name in names:
                value = self.read(name)
                assert value is not None
                self.write(name, value)
        return len(names)

    @override
    def expect(self, name: str) -> None:
        age.recipients_of(self.recipients)

    @override
    def _forget(self) -> None:
        self.recipients.unlink(missing_ok=True)

    @override
    def _encoded(self, value: str) -> bytes:
        return age.encrypted(value, age.recipients_of(self.recipients))

    @override
    def _decoded(self, path: Path, content: bytes) -> str:
        if self._identities is None:
            self._identities = age.own_identities()
        return age.decrypted(path, content, self._identities)


class FromCommand:
    """What a shell command prints: one JSON object, name to value. It is asked once, and read only.

    The file `root` holds the command, which runs in the directory `project`.
    """

    kind = "what a command gives"

    def __init__(self, root: Path, project: Path) -> None:
        self.root = root
        self.project = project
        self._values: dict[str, str] | None = None

    def place(self, name: str) -> Path:
        return self.root

    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self._given()))

    def read(self, name: str) -> str | None:
        value = self._given().get(name)
        return None if value is None else value.strip()

    def expect(self, name: str) -> None:
        raise FleetError(
            f"{name}: {self.root} says that a command gives the secrets, so nothing is kept here; "
            "put a value where that command reads"
        )

    def write(self, name: str, value: str) -> None:
        self.expect(name)

    def keep(self, name: str, value: str) -> str:
        self.expect(name)
        return value

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def clear(self, names: Iterable[str]) -> tuple[str, ...]:
        self.root.unlink()
        return ()

    def _given(self) -> dict[str, str]:
        if self._values is None:
            command = self.root.read_text().strip()
            self._values = given_by(command, f"{self.root}", self.project)
        return self._values


def given_by(command: str, place: str, project: Path) -> dict[str, str]:
    """What the shell command `command`, run in the directory `project`, prints.

    Raises:
        FleetError: it fails, or prints no JSON object of names and texts. `place` says where it is
            declared.
    """
    if not command:
        raise FleetError(f"{place}: no command; write one that prints the secrets as a JSON object")
    try:
        result = subprocess.run(
            ["sh", "-c", command], cwd=project, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=_ANSWER, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise FleetError(f"{place}: the command gave no answer in {_ANSWER:.0f} seconds") from None
    if result.returncode != 0:
        # Its words may be shown: secrets are what it prints, not what it complains of.
        why = (result.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise FleetError(f"{place}: the command ended with {result.returncode}: {why}")
    return from_json(result.stdout, f"{place}: what the command prints")


def from_json(text: str, what: str) -> dict[str, str]:
    """The secrets in a JSON object, name to value.

    Raises:
        FleetError: it is none, or a name or a value cannot be one; no value is shown.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise FleetError(f'{what} is not a JSON object such as {{"store_id": "..."}}')
    for name, value in found.items():
        if not NAME.fullmatch(name):
            raise FleetError(f"{what} has {name!r}, which is no secret's name")
        if not isinstance(value, str) or not value.strip():
            raise FleetError(f"{what} has {name!r}, whose value is empty or no text")
    return found


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
