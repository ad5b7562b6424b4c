"""Backups of Dify on their way between a host and this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tarfile
from pathlib import Path
from typing import IO, Any

from pyinfra.api import Host, QuoteString, State, StringCommand

from fleet.declare.fleet import Fleet, FleetHost
from fleet.dify import declared as dify
from fleet.dify.files import stack_sandbox
from fleet.dify.on_host.dify_manifest import LONGEST, MANIFEST, Manifest, manifest_of
from fleet.dify.paths import DIFY_RESTORE, DIFY_ROOT, DIFY_STACK_CONFIG, DIFY_STACK_PROGRAM
from fleet.dify.settings import Dify
from fleet.kit.connection.prefix import UNIT_OPTIONS
from fleet.kit.errors import FleetError
from fleet.kit.jobs import properties
from fleet.kit.journal import journal_of
from fleet.kit.on_host.common import sha256

# For the user who logs in, who need not be root; it is on the disk, an archive may be large.
_PASSAGE = "/var/tmp"  # noqa: S108 - every name in it is random, and made with mode 600
_JOB = "llm-fleet-dify-backup-now.service"
_BACKUP_DEADLINE = 24 * 3600  # seconds; it may be of a disk full of knowledge
_TEXTS = {"secrets": "secrets.json", "app_keys": "app-keys.json"}
_VALUE = re.compile(r"[!-~]{1,200}")


class DifyHost:
    """A Dify host of the inventory, connected."""

    def __init__(self, state: State, fleet: Fleet, name: str) -> None:
        self.declared = _declared(fleet, name)
        self._store = fleet.secrets
        self._host: Host = state.inventory.get_host(name)
        self._host.connect(show_errors=False, raise_exceptions=True)
        state.activate_host(self._host)

    def close(self) -> None:
        """End the connection."""
        self._host.disconnect()

    def backup(self, into: Path) -> Path:
        """Make a backup on the host, and have a checked copy of it in the directory `into`.

        Raises:
            FleetError: the host could not make one, or the copy is not what was sent.
        """
        before = self._archives()
        program, config = DIFY_STACK_PROGRAM, DIFY_STACK_CONFIG
        after = f"ExecStopPost=/usr/bin/python3 {program} unpause {config}"
        # A unit: with the line cut in the middle, the containers must not stay paused.
        self._run(
            StringCommand(
                "systemd-run --quiet --wait --collect", UNIT_OPTIONS, "--unit", _JOB,
                "--property", QuoteString(after), *properties(stack_sandbox()),
                "/usr/bin/python3", program, "backup", config,
                "|| {", journal_of(_JOB, 8), ">&2; exit 1; }",
            ),
            timeout=_BACKUP_DEADLINE,
        )  # fmt: skip
        # By name: of the archives' times one may be of a clock that was wrong.
        made = self._archives() - before
        if len(made) != 1:
            raise FleetError(
                f"{self.declared.name}: {len(made)} new archives in "
                f"{self.declared[Dify].backup_dir}; ask again"
            )
        [archive] = made
        place = f"{self.declared[Dify].backup_dir}/{archive}"
        [line] = self._run(StringCommand("cat", QuoteString(f"{place}.sha256")))
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        [size] = self._run(StringCommand("stat -c %s", QuoteString(place)))
        if (free := shutil.disk_usage(into).free) < int(size):
            raise FleetError(
                f"{into}: {archive} has {int(size) / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free "
                "here; make room, or name another place (--to)"
            )
        copy = into / archive
        part = into / f"{archive}.part"
        try:
            self._fetch(place, part)
            if (actual := sha256(part)) != line.split()[0]:
                raise FleetError(f"{archive}: SHA-256 expected {line.split()[0]}, actual {actual}")
            copy.with_name(f"{copy.name}.sha256").write_text(f"{line}\n")
            part.rename(copy)
        finally:
            part.unlink(missing_ok=True)
        return copy

    def _archives(self) -> set[str]:
        """The names of the archives on the host."""
        directory = QuoteString(self.declared[Dify].backup_dir)
        find = StringCommand("find", directory, "-maxdepth 1 -name 'dify-*.tar' -printf '%f\\n'")
        return set(self._run(StringCommand("[ ! -d", directory, "] ||", find)))

    def restore(self, archive: Path) -> list[str]:
        """Lay `archive` ready for the next deploy, and its secrets into the store.

        Data and secrets belong together: the owner's password and the apps' keys are in the
        database. Returns the names of the secrets that had another value.

        Raises:
            FleetError: it is no whole backup of the declared version.
        """
        manifest, kept = read_backup(archive)
        version = self.declared[Dify].version
        if manifest.version != version:
            raise FleetError(
                f"{self.declared.name}: dify_version = {version!r}, but {archive.name} is of "
                f"{manifest.version}; declare that version, restore, and upgrade afterwards"
            )
        part = f"{DIFY_RESTORE}.part"
        self._run(StringCommand("install -d -m 700", DIFY_ROOT))
        self._need_room(archive.stat().st_size)
        self._send(archive, part)
        # Before the secrets: a deploy refuses an archive that has others than the store, and
        # without the archive it would tell them to the Dify that runs.
        self._run(StringCommand("mv -f", part, DIFY_RESTORE))
        replaced = []
        for secret, value in kept.items():
            name = dify.SECRETS.name(self.declared, secret)
            before = self._store.read(name)
            if before is not None and before.get_secret_value() != value:
                replaced.append(name)
            self._store.replace(name, value)
        return replaced

    def _need_room(self, size: int) -> None:
        """Raise FleetError where the archive could fill a disk of the host on its way."""
        lines = self._run(StringCommand("df -Pk", _PASSAGE, DIFY_ROOT))
        if problem := disk_problem(lines, size):
            raise FleetError(f"{self.declared.name}: no room for the archive: {problem}; make room")

    def _fetch(self, remote: str, local: Path) -> None:
        passage = f"{_PASSAGE}/llm-fleet-{secrets.token_hex(8)}"
        # pyinfra's own way through sudo would make a copy that every user of the host can read.
        self._run(
            StringCommand(
                'install -m 600 -o "${SUDO_UID:-0}"', QuoteString(remote), QuoteString(passage)
            )
        )
        try:
            descriptor = os.open(local, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                if not self._host.get_file(passage, file):
                    raise FleetError(f"{self.declared.name}: {remote} could not be fetched")
        finally:
            self._run(StringCommand("rm -f", QuoteString(passage)))

    def _send(self, local: Path, remote: str) -> None:
        passage = f"{_PASSAGE}/llm-fleet-{secrets.token_hex(8)}"
        self._run(StringCommand("umask 077; set -C; : >", QuoteString(passage)), sudo=False)
        try:
            if not self._host.put_file(str(local), passage):
                raise FleetError(f"{self.declared.name}: {local} could not be sent")
            self._run(
                StringCommand("install -m 600 -o root", QuoteString(passage), QuoteString(remote))
            )
        finally:
            self._run(StringCommand("rm -f", QuoteString(passage)))

    def _run(
        self, command: StringCommand, *, sudo: bool = True, timeout: int | None = None
    ) -> list[str]:
        wanted = sudo and bool(self._host.data.get("_sudo"))
        ok, output = self._host.run_shell_command(command, _sudo=wanted, _timeout=timeout)
        if not ok:
            raise FleetError(f"{self.declared.name}: {output.stderr.strip() or 'failed'}")
        lines: list[str] = output.stdout_lines
        return lines


def disk_problem(lines: list[str], size: int) -> str | None:
    """Which disk of those that `df -Pk` lists cannot take so many bytes for each of its lines."""
    rows = [line.rsplit(None, 5) for line in lines[1:]]
    free = {row[0]: int(row[3]) * 1024 for row in rows}
    for disk, left in free.items():
        # On one disk it is there twice for a moment.
        needed = size * sum(row[0] == disk for row in rows)
        if left < needed:
            return f"{needed / 1e9:.2f} GB are needed on {disk}, and {left / 1e9:.2f} GB are free"
    return None


def _declared(fleet: Fleet, name: str) -> FleetHost:
    known = [host.name for host in fleet if host.runs(Dify)]
    if name not in known:
        raise FleetError(f"{name}: no such Dify host; there are {', '.join(known) or 'none'}")
    return fleet[name]


def read_backup(archive: Path) -> tuple[Manifest, dict[str, str]]:
    """The manifest of a backup, and the secrets in it by their names without the host.

    Raises:
        FleetError: it is not one, or it is damaged.
    """
    if not archive.is_file():
        raise FleetError(f"{archive}: no such file")
    beside = archive.with_name(f"{archive.name}.sha256")
    if beside.exists() and beside.read_text().split()[:1] != [sha256(archive)]:
        raise FleetError(f"{archive}: not what {beside.name} says; it is damaged")
    try:
        with tarfile.open(archive, "r:") as tar:
            manifest = manifest_of(_json(tar, MANIFEST))
            damaged = [n for n, known in manifest.files.items() if _sha256_of(tar, n) != known]
            texts = {
                word: _json(tar, name) for word, name in _TEXTS.items() if name in manifest.files
            }
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise FleetError(f"{archive}: no backup of Dify: {error}") from None
    if damaged:
        raise FleetError(f"{archive}: {', '.join(damaged)} is damaged")
    if "secrets" not in texts:
        raise FleetError(f"{archive}: no backup of Dify: there are no secrets in it")
    return manifest, _kept_secrets(archive, **texts)


def _kept_secrets(archive: Path, secrets: Any, app_keys: Any = None) -> dict[str, str]:
    """What goes into the store: by its names, which are file names there, and in its forms."""
    kept = {}
    for where, values in (("secrets.json", secrets), ("app-keys.json", app_keys or {})):
        if not isinstance(values, dict):
            raise FleetError(f"{archive}: {where} is no list of names")
        for name, value in values.items():
            known = name in (dify.SECRETS.secrets if where == "secrets.json" else dify.APPS)
            if not known or not isinstance(value, str) or not _VALUE.fullmatch(value):
                raise FleetError(
                    f"{archive}: {where} has {name!r}, which is no secret of Dify's or not in the "
                    "form of one: the backup is not of this project, or of another version of it"
                )
            kept[name if where == "secrets.json" else f"app_{name}"] = value
    return kept


def _json(tar: tarfile.TarFile, name: str) -> Any:
    text = _open(tar, name).read(LONGEST + 1)
    if len(text) > LONGEST:
        raise ValueError(f"{name} is too long")
    return json.loads(text)


def _sha256_of(tar: tarfile.TarFile, name: str) -> str:
    return hashlib.file_digest(_open(tar, name), "sha256").hexdigest()  # type: ignore[arg-type]


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    member = tar.getmember(f"./{name}")
    file = tar.extractfile(member) if member.isreg() else None
    if file is None:
        raise ValueError(f"{name} is no file")
    return file
