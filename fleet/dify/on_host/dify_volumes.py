"""What Dify keeps on a disk: volumes and databases, copied, put back, and checked."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from archives import volume_path
from common import ProgramError, run, say
from dify_archive import Tree, judge_tree
from dify_compose import Release
from dify_health import DATABASE

# What of a name is written into commands and files.
_DATABASE_NAME = re.compile(r"\w{1,63}", re.ASCII)
# The owner of Dify's own processes in their containers.
_STORAGE_OWNER = "1001:1001"
_VOLUMES = "volumes.tar.gz"


def size_of(directory: Path) -> int:
    """Bytes of the files under a directory; it, or any of them, may be gone by now."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(place, name).lstat().st_size
    return total


def databases(release: Release) -> list[str]:
    """Every database that is not PostgreSQL's own."""
    text = release.compose(
        "exec", "-T", DATABASE, "sh", "-c",
        'PGPASSWORD="$POSTGRES_PASSWORD" psql -U "${POSTGRES_USER:-postgres}" -d postgres -Atc '
        "\"select datname from pg_database where not datistemplate and datname <> 'postgres'\"",
    )  # fmt: skip
    names = text.split()
    if strange := next((name for name in names if not _DATABASE_NAME.fullmatch(name)), None):
        raise ProgramError(f"{DATABASE}: a database is called {strange!r}; call it by letters")
    return names


def dump(release: Release, name: str, target: Path) -> None:
    """Write a database to the file `target`, in pg_dump's own format."""
    command = 'PGPASSWORD="$POSTGRES_PASSWORD" exec pg_dump -U "${POSTGRES_USER:-postgres}" -Fc'
    # Who holds a lock may be paused, and would hold it as long as the dump waits for it.
    command += " --lock-wait-timeout=60000"
    container = release.containers()[DATABASE]["Id"]
    with target.open("wb") as file:
        done = subprocess.run(
            ["docker", "exec", container, "sh", "-c", f'{command} -d "$1"', "sh", name],
            stdout=file, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
    if done.returncode != 0:
        raise ProgramError(f"pg_dump {name}: {done.stderr.decode()[-500:]}")


def load(release: Release, name: str, dumped: Path) -> None:
    """Have a database as it was dumped, and nothing else of that name."""
    say(f"restoring the database {name}")
    psql = (
        'export PGPASSWORD="$POSTGRES_PASSWORD"; user=${POSTGRES_USER:-postgres};'
        ' psql -q -U "$user" -d postgres -v ON_ERROR_STOP=1'
        ' -c "DROP DATABASE IF EXISTS \\"$1\\"" -c "CREATE DATABASE \\"$1\\"" &&'
        ' exec pg_restore -U "$user" --no-owner --exit-on-error -d "$1"'
    )
    container = release.containers()[DATABASE]["Id"]
    with dumped.open("rb") as file:
        run("docker", "exec", "--interactive", container, "sh", "-c", psql, "sh", name, stdin=file)


def tar(target: Path, directory: Path, *options: str) -> None:
    """Write what is in a directory to the archive `target`."""
    run("tar", "--create", "--numeric-owner", "--acls", "--xattrs", *options,
        "--file", str(target), "--directory", str(directory), ".")  # fmt: skip


def untar(archive: Path, directory: Path, tree: Tree) -> None:
    """Unpack a judged archive, with its owners and rights, and without what is no data."""
    # Not made and then deleted: whoever runs this may not make devices.
    left_out = (f"--exclude={name}" for name in tree.special)
    run("tar", "--extract", "--gzip", "--numeric-owner", "--same-owner", "--same-permissions",
        "--acls", "--xattrs", "--anchored", "--no-wildcards", *left_out,
        "--file", str(archive), "--directory", str(directory))  # fmt: skip


def put_aside(directory: Path, archive: Path) -> None:
    """Have what `directory` held before anything was put back in `archive`."""
    if not archive.exists():
        archive.parent.mkdir(mode=0o700, exist_ok=True)
        part = archive.with_name(f".{archive.name}.part")
        tar(part, directory)
        part.rename(archive)


def named_volumes(project: str) -> list[str]:
    """Docker's volumes of a Compose project."""
    label = f"label=com.docker.compose.project={project}"
    return run("docker", "volume", "ls", "--quiet", "--filter", label).split()


def make_volume(project: str, name: str) -> None:
    """Have the volume `name` of a Compose project."""
    if name not in named_volumes(project):
        # As Compose labels it, or it would not take it for its own.
        short = name[len(f"{project}_") :]
        run("docker", "volume", "create", "--label", f"com.docker.compose.project={project}",
            "--label", f"com.docker.compose.volume={short}", name)  # fmt: skip


def trees_of(stage: Path, project: str) -> dict[str, Tree]:
    """What an unpacked backup has for the volumes, judged, by the names of its archives.

    Raises:
        ProgramError: it has none for them, or one that is not of this project.
    """
    if not (stage / _VOLUMES).exists():
        raise ProgramError(f"no backup of Dify: {_VOLUMES} is missing")
    named = sorted(stage.glob("named-*.tar.gz"))
    if strange := next((p for p in named if not _volume_of(p).startswith(f"{project}_")), None):
        raise ProgramError(f"{strange.name}: no volume of {project}")
    return {path.name: judge_tree(path) for path in (stage / _VOLUMES, *named)}


def _volume_of(part: Path) -> str:
    return part.name[len("named-") : -len(".tar.gz")]


def replace_volumes(
    volumes: Path, project: str, stage: Path, former: Path | None, trees: dict[str, Tree]
) -> None:
    """Have in the volumes what an unpacked backup holds; what was there goes to `former`.

    `trees` is what was judged of its archives, by their names.
    """
    if former and volumes.exists() and not former.exists():
        volumes.rename(former)
    shutil.rmtree(volumes, ignore_errors=True)
    volumes.mkdir(mode=0o755)
    untar(stage / _VOLUMES, volumes, trees[_VOLUMES])
    storage = volumes / "app" / "storage"
    if storage.exists():
        run("chown", "--recursive", "-P", "--no-dereference", _STORAGE_OWNER, str(storage))
    for part in sorted(stage.glob("named-*.tar.gz")):
        name = _volume_of(part)
        make_volume(project, name)
        place = volume_path(name)
        if former:
            put_aside(place, former / f"named-{name}.tar")
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        untar(part, place, trees[part.name])


def space_needed(volumes: Path, project: str) -> int:
    """Bytes that a backup may take: copies, and then the archive of them."""
    database = size_of(volumes / "db" / "data")
    named = sum(size_of(volume_path(name)) for name in named_volumes(project))
    # A dump is smaller by far than the tables and their log.
    return 2 * (size_of(volumes) - database + named) + database
