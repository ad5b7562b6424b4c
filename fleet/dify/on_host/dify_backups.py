"""Backups of all there is to lose of Dify, and their return."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from archives import is_due, seal, sum_of, volume_path
from common import ProgramError, make_directory, run, say, sha256
from dify_compose import Release
from dify_containers import Containers
from dify_freeze import mark
from dify_health import DATABASE
from dify_state import Event, Phase, StateFile
from dify_volumes import (
    databases,
    dump,
    load,
    named_volumes,
    read_manifest,
    replace_volumes,
    space_needed,
    tar,
    unpack_checked,
)

_ARCHIVES = "dify-*.tar"


class Backups:
    """The archives of one host's Dify."""

    def __init__(self, config: dict[str, Any], state: StateFile, containers: Containers) -> None:
        self.config, self.state, self.containers = config, state, containers
        self.root = Path(config["root"])
        self.volumes = self.root / "volumes"
        self.directory = Path(config["backup"]["dir"])

    def is_due(self) -> bool:
        """Whether the newest archive would be too old before this is asked again."""
        return is_due(self.directory, _ARCHIVES, self.config["backup"]["due"])

    def refuse(self) -> None:
        """Raise ProgramError where an archive would be of no version, or of two."""
        if self.state.now.is_under_way:
            raise ProgramError("no backup now: an upgrade was cut off; deploy first")
        if self.state.now.phase is not Phase.RUNNING:
            raise ProgramError("no backup now: Dify is not installed yet; deploy first")

    def make(self) -> Path:
        """Write an archive of all there is to lose; its path.

        Everything but the database is paused meanwhile, so that files and tables are of one moment.
        """
        release = Release(self.config, self.state.now.version)
        # One that is there may hold what is others': archives are root's alone by themselves.
        make_directory(self.directory, 0o700)
        for stale in self.directory.glob(".part-*"):
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
        fix = "make room, or declare another dify_backup_dir"
        self.check_space(self.directory, "no backup", fix)
        stage = Path(tempfile.mkdtemp(dir=self.directory, prefix=".part-"))
        try:
            self._freeze_and_copy(release, stage)
            archive = self._pack(release, stage)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        self._prune()
        say(f"backup {archive.name}: {archive.stat().st_size / 1e6:.1f} MB")
        return archive

    def check_space(self, directory: Path, what: str, fix: str) -> None:
        """Raise ProgramError where the copies could fill the disk, before anything is paused."""
        needed = space_needed(self.volumes, self.config["project"])
        free = shutil.disk_usage(directory).free
        if free < needed:
            raise ProgramError(
                f"{what}: it may take {needed / 1e9:.1f} GB, and {directory} has"
                f" {free / 1e9:.1f} GB free: {fix}"
            )

    def _freeze_and_copy(self, release: Release, stage: Path) -> None:
        containers = release.containers()
        running = {
            name: item["Id"]
            for name, item in containers.items()
            if item["State"]["Status"] == "running"
        }
        if DATABASE not in running:
            raise ProgramError(f"{DATABASE} does not run, so there is nothing to dump")
        if "redis" in running:
            said = release.compose("exec", "-T", "redis", "redis-cli", "save").strip()
            if said != "OK":
                raise ProgramError(f"redis-cli save: {said}")
        say("pausing the containers")
        mark(self.root).touch()
        try:
            if others := [item for name, item in running.items() if name != DATABASE]:
                run("docker", "pause", *others)
            say("dumping the databases")
            for name in databases(release):
                dump(release, name, stage / f"database-{name}.dump")
            say("copying the volumes")
            tar(stage / "volumes.tar", self.volumes, "--exclude=./db/data")
            for name in named_volumes(self.config["project"]):
                tar(stage / f"named-{name}.tar", volume_path(name))
        finally:
            self.containers.unpause()
        tar(stage / "release.tar", release.directory, "--exclude=./volumes")
        # Slower than the copying, so only now that nobody waits for it.
        run("gzip", *(str(path) for path in sorted(stage.glob("*.tar"))))
        for path in (Path(self.config["secrets"]), *self._own_paths()):
            if path.exists():
                shutil.copy2(path, stage / path.name)

    def _own_paths(self) -> list[Path]:
        """What this project keeps of Dify on the host, beside its secrets: memory, keys."""
        client = json.loads(Path(self.config["client"]).read_text())
        return [Path(client["memory"]), Path(client["keys"])]

    def _pack(self, release: Release, stage: Path) -> Path:
        files = {path.name: sha256(path) for path in sorted(stage.iterdir())}
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        manifest = {"version": release.version, "made": now, "files": files}
        (stage / "manifest.json").write_text(json.dumps(manifest, indent=1))
        archive = self.directory / f"dify-{release.version}-{now}.tar"
        part = stage.with_name(f"{stage.name}.tar")
        try:
            # Before there is anything in it: every secret will be.
            part.touch(mode=0o600)
            run("tar", "--create", "--file", str(part), "--directory", str(stage), ".")
            seal(part, archive)
        finally:
            part.unlink(missing_ok=True)
        return archive

    def _prune(self) -> None:
        archives = sorted(self.directory.glob(_ARCHIVES), key=lambda path: path.stat().st_mtime)
        for path in archives[: -self.config["backup"]["keep"]]:
            if str(path) != self.state.now.backup:
                path.unlink()
                sum_of(path).unlink(missing_ok=True)

    def restore(self, archive: Path, release: Release) -> None:
        """Have the state of `archive`, which must be of the declared `release`."""
        version = read_manifest(archive)["version"]
        if version != release.version:
            raise ProgramError(
                f"the backup is of Dify {version}: declare dify_version = "
                f"'{version}' to restore it, and upgrade afterwards"
            )
        # On a bare host too: where this was cut off, PostgreSQL runs on what is replaced.
        self.containers.down()
        release.prepare()
        aside = self.aside(archive) if self.state.now.version else None
        self.put_back(archive, release, aside)
        self.state.tell(Event.RESTORED, version=release.version, started={})

    def aside(self, archive: Path) -> Path:
        """Where `archive` puts what was there before it.

        The same name when this was cut off and is done again, another for another archive.
        """
        return self.root / f"volumes.before-{int(archive.stat().st_mtime)}"

    def put_back(self, archive: Path, release: Release, former: Path | None) -> None:
        """Import an archive while nothing runs; its database runs afterwards."""
        say(f"restoring {archive.name}")
        stage = self.root / ".restore"
        shutil.rmtree(stage, ignore_errors=True)
        stage.mkdir(mode=0o700)
        unpack_checked(archive, stage)
        replace_volumes(self.volumes, self.config["project"], stage, former)
        self.containers.start_database(release)
        for dumped in sorted(stage.glob("database-*.dump")):
            load(release, dumped.name[len("database-") : -len(".dump")], dumped)
        for path in self._own_paths():
            if (stage / path.name).exists():
                shutil.copy2(stage / path.name, path)
        shutil.rmtree(stage)
