"""An archive of Dify, judged before anything of it is used: names, kinds, forms, sums and sizes.

Whoever hands one over may have made it, and what is in its volumes was written by containers. So
only the parts of a backup are taken out of it, each a plain file of a known name, and a tree is not
unpacked whose members would lie elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from archives import sum_of
from common import BLOCK, ProgramError, sha256
from dify_manifest import LONGEST, MANIFEST, Manifest, manifest_of


def read_manifest(archive: Path) -> Manifest:
    """The manifest of a backup. Raises ProgramError when it is none, or not whole."""
    beside = sum_of(archive)
    if beside.exists() and beside.read_text().split()[:1] != [sha256(archive)]:
        raise ProgramError(f"{archive}: not what its .sha256 says; it is damaged")
    try:
        with tarfile.open(archive, "r:") as parts:
            member = parts.getmember(f"./{MANIFEST}")
            file = parts.extractfile(member) if member.isreg() else None
            if file is None or member.size > LONGEST:
                raise ValueError(f"{MANIFEST} is no file, or too long")
            return manifest_of(json.loads(file.read()))
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise ProgramError(f"{archive}: no backup of Dify: {error}") from None


def unpack_checked(archive: Path, directory: Path) -> None:
    """Unpack the parts of a backup, each of which has the checksum that its manifest says."""
    left = dict(read_manifest(archive).files)
    with tarfile.open(archive, "r:") as parts:
        for member in parts:
            name = member.name.removeprefix("./")
            if name in (".", MANIFEST):
                continue
            expected = left.pop(name, None)
            source = parts.extractfile(member) if member.isreg() else None
            if expected is None or source is None:
                raise ProgramError(
                    f"{archive}: {name!r} is no part of it; nothing was restored from it"
                )
            digest = hashlib.sha256()
            with (directory / name).open("xb") as target:
                while block := source.read(BLOCK):
                    digest.update(block)
                    target.write(block)
            if digest.hexdigest() != expected:
                raise ProgramError(f"{archive}: {name} is damaged; nothing was restored from it")
    if left:
        raise ProgramError(f"{archive}: {min(left)} is missing; nothing was restored from it")


@dataclass(frozen=True)
class Tree:
    """A judged archive of a folder: how large, and its members that are no data.

    Those are devices, which are nobody's to bring, and pipes: whatever a container left.
    """

    size: int
    special: tuple[str, ...]


def judge_tree(archive: Path) -> Tree:
    """Look at every member of a compressed archive of a folder.

    Raises:
        ProgramError: one would lie outside of the folder.
    """
    size, special, links = 0, [], set[str]()
    try:
        with tarfile.open(archive, "r|gz") as members:
            for member in members:
                if problem := _problem(member, links):
                    raise ProgramError(f"{archive.name}: {member.name!r} {problem}")
                if member.issym():
                    links.add(str(PurePosixPath(member.name)))
                elif not (member.isreg() or member.isdir() or member.islnk()):
                    special.append(member.name)
                size += member.size
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ProgramError(f"{archive.name}: cannot be read: {error}") from None
    return Tree(size, tuple(special))


def _problem(member: tarfile.TarInfo, links: set[str]) -> str | None:
    places = [PurePosixPath(member.name)]
    if member.islnk():
        places.append(PurePosixPath(member.linkname))
    for place in places:
        if place.is_absolute() or ".." in place.parts:
            return "leads out of the archive"
        if links & {str(parent) for parent in place.parents}:
            return "lies behind a link"
    return None


def clear(stage: Path) -> None:
    """Have an empty folder that is root's alone."""
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(mode=0o700)
