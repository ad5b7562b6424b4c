"""Images of the lab: the same files give the same digests, wherever and whenever packed."""

import gzip
import hashlib
import os
import tarfile
from pathlib import Path

from lab import oci


def tree(root: Path, when: float) -> Path:
    (root / "b").mkdir(parents=True)
    (root / "b/file").write_text("text")
    (root / "b/file").chmod(0o640)
    (root / "a").symlink_to("b/file")
    for path in (root / "b/file", root / "b"):
        os.utime(path, (when, when))
    return root


def test_layers_do_not_depend_on_place_and_time(tmp_path: Path) -> None:
    now, later = float(oci.BUILT + 10), float(oci.BUILT + 1000)
    first = oci.layer_of_tree(tree(tmp_path / "1", now), tmp_path / "1.tar.gz")
    second = oci.layer_of_tree(tree(tmp_path / "2", later), tmp_path / "2.tar.gz")
    assert (first.digest, first.diff_id) == (second.digest, second.diff_id)
    (tmp_path / "2/b/file").write_text("other")
    third = oci.layer_of_tree(tmp_path / "2", tmp_path / "3.tar.gz")
    assert third.digest != first.digest


def test_layer_is_what_its_digests_say(tmp_path: Path) -> None:
    layer = oci.layer_of_tree(tree(tmp_path / "root", oci.BUILT - 5), tmp_path / "layer.tar.gz")
    packed = layer.path.read_bytes()
    assert layer.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}"
    assert layer.size == len(packed)
    with tarfile.open(layer.path) as archive:
        members = {member.name: member for member in archive}
    assert list(members) == ["a", "b", "b/file"]
    assert members["a"].linkname == "b/file"
    assert members["b/file"].mode == 0o640
    # Older times stay: compiled Python files are judged by those of their sources.
    assert members["b/file"].mtime == oci.BUILT - 5


def test_files_and_folders_have_modes_and_owners(tmp_path: Path) -> None:
    files: dict[str, tuple[Path | bytes, int]] = {"usr/bin/tool": (b"#!/bin/sh\n", 0o755)}
    layer = oci.layer_of_files(files, {"app/storage": 1001}, tmp_path / "layer.tar.gz")
    with tarfile.open(layer.path) as archive:
        folder, tool = archive.getmember("app/storage"), archive.getmember("usr/bin/tool")
    assert (folder.isdir(), folder.uid, folder.mode) == (True, 1001, 0o755)
    assert (tool.mode, tool.size) == (0o755, 10)
