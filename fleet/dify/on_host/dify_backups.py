"""Backups of all there is to lose of Dify, and their return."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from archives import is_due, prune, seal, volume_path
from common import ProgramError, make_directory, run, say, sha256
from dify_archive import Tree, clear, read_manifest, unpack_checked
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
    replace_volumes,
    size_of,
    space_needed,
    tar,
    trees_of,
)

_ARCHIVES = "dify-*.tar"
# How much larger tables are than their dump, mostly.
_TABLES = 5
_MAKE_ROOM = "make room, and deploy again"


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
        needed = {archive, Path(self.state.now.backup)}
        prune(self.directory, _ARCHIVES, self.config["backup"]["keep"], needed)
        say(f"backup {archive.name}: {archive.stat().st_size / 1e6:.1f} MB")
        return archive

    def check_space(self, directory: Path, what: str, fix: str) -> None:
        """Raise ProgramError where the copies could fill the disk, before anything is paused."""
        needed = space_needed(self.volumes, self.config["project"])
        free = shutil.disk_usage(directory).free
        if free < needed:
            raise ProgramError(_no_room(what, needed, directory, free, fix))

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

    def restore(self, archive: Path, release: Release) -> None:
        """Have the state of `archive`, which must be of the declared `release`."""
        aside = self.aside(archive) if self.state.now.version else None
        try:
            version = read_manifest(archive).version
            if version != release.version:
                raise ProgramError(
                    f"the backup is of Dify {version}: declare dify_version = "
                    f"'{version}' to restore it, and upgrade afterwards"
                )
            trees = self.lay_out(archive)
            self._check_secrets()
            self._check_room(trees, aside)
        except ProgramError as error:
            raise ProgramError(
                f"{error}; nothing was changed: lay another archive ready, or rm {archive}"
            ) from None
        # On a bare host too: where this was cut off, PostgreSQL runs on what is replaced.
        self.containers.down()
        release.prepare()
        self.put_back(release, aside, trees)
        self.state.tell(Event.RESTORED, version=release.version, started={})

    def aside(self, archive: Path) -> Path:
        """Where `archive` puts what was there before it.

        The same name when this was cut off and is done again, another for another archive.
        """
        return self.root / f"volumes.before-{int(archive.stat().st_mtime)}"

    def lay_out(self, archive: Path) -> dict[str, Tree]:
        """Unpack an archive beside what is there, and judge all of it."""
        say(f"looking at {archive.name}")
        clear(self._stage)
        free, needed = shutil.disk_usage(self.root).free, archive.stat().st_size
        try:
            if free < needed:
                raise ProgramError(_no_room("no restore", needed, self.root, free, _MAKE_ROOM))
            unpack_checked(archive, self._stage)
            return trees_of(self._stage, self.config["project"])
        except ProgramError:
            shutil.rmtree(self._stage)
            raise

    def _check_secrets(self) -> None:
        """Raise ProgramError where what was laid out has other secrets than the deploy's."""
        ours = json.loads(Path(self.config["secrets"]).read_text())
        theirs = json.loads((self._stage / Path(self.config["secrets"]).name).read_text())
        if other := sorted(name for name, value in theirs.items() if ours.get(name) != value):
            shutil.rmtree(self._stage)
            raise ProgramError(
                f"the store has another {', '.join(other)} than the backup: run `fleet dify "
                "restore` again, it was cut off"
            )

    def _check_room(self, trees: dict[str, Tree], aside: Path | None) -> None:
        """Raise ProgramError where what was laid out could fill the disk, unpacked."""
        dumps = sum(path.stat().st_size for path in self._stage.glob("*.dump"))
        # A dump is smaller by far than its tables.
        needed = sum(tree.size for tree in trees.values()) + _TABLES * dumps
        free = shutil.disk_usage(self.root).free
        if aside is None or aside.exists():
            # Of a restore that was cut off: it goes first.
            free += size_of(self.volumes)
        if free < needed:
            shutil.rmtree(self._stage)
            raise ProgramError(_no_room("no restore", needed, self.root, free, _MAKE_ROOM))

    @property
    def _stage(self) -> Path:
        return self.root / ".restore"

    def put_back(self, release: Release, former: Path | None, trees: dict[str, Tree]) -> None:
        """Import what was laid out while nothing runs; its database runs afterwards."""
        say("restoring what is in it")
        stage = self._stage
        replace_volumes(self.volumes, self.config["project"], stage, former, trees)
        self.containers.start_database(release)
        for dumped in sorted(stage.glob("database-*.dump")):
            load(release, dumped.name[len("database-") : -len(".dump")], dumped)
        for path in self._own_paths():
            if (stage / path.name).exists():
                shutil.copy2(stage / path.name, path)
        shutil.rmtree(stage)


def _no_room(what: str, needed: int, directory: Path, free: int, fix: str) -> str:
    return (
        f"{what}: it may take {needed / 1e9:.1f} GB, and {directory} has {free / 1e9:.1f} GB free:"
        f" {fix}"
    )
