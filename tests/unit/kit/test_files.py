"""In which order files that belong together are renamed, and what may be in their place."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from fleet.kit.files import ManagedFile, _put, referred_first

_CONFIG = ManagedFile("/etc/gateway/main.conf", "include keys.conf;\ncertificate tls.crt;\n")
_KEYS = ManagedFile("/etc/gateway/keys.conf", "a b\n")
_CERTIFICATE = ManagedFile("/etc/gateway/tls.crt", "PEM\n")
_UNIT = ManagedFile("/etc/systemd/system/a.service", "ExecStart=a -c /etc/gateway/main.conf\n")


@pytest.mark.parametrize(
    "files", list(itertools.permutations([_CONFIG, _KEYS, _CERTIFICATE, _UNIT]))
)
def test_what_refers_comes_after_what_it_refers_to(files: tuple[ManagedFile, ...]) -> None:
    """Whatever the order they were given in: a run may be killed after each of them."""
    ordered = referred_first(list(files))
    assert sorted(ordered, key=str) == sorted(files, key=str)
    assert ordered.index(_CONFIG) > max(ordered.index(_KEYS), ordered.index(_CERTIFICATE))
    assert ordered.index(_UNIT) > ordered.index(_CONFIG)


def test_those_that_name_each_other_come_once() -> None:
    files = [ManagedFile("/etc/a", "see b"), ManagedFile("/etc/b", "see a")]
    assert sorted(file.path for file in referred_first(files)) == ["/etc/a", "/etc/b"]


@pytest.mark.parametrize(
    "before",
    ["echo old > file", "mkdir file", "mkdir -p file/in/it", "ln -s /dev/null file",
     "ln -s / file", "ln -s nowhere file", "mkfifo file", "true"],
)  # fmt: skip
def test_whatever_is_in_a_files_place_gives_way(tmp_path: Path, before: str) -> None:
    path = tmp_path / "file"
    path.with_name("file.new").write_text("new")
    subprocess.run(["sh", "-c", before], cwd=tmp_path, check=True)
    command = _put(ManagedFile(str(path), "new")).get_raw_value()
    subprocess.run(["sh", "-c", command], check=True)
    assert not path.is_symlink()
    assert path.read_text() == "new"
    # A directory is somebody's: it is kept beside it.
    found = list(tmp_path.glob("file.found.*"))
    assert len(found) == ("mkdir" in before)
    if "in/it" in before:
        assert (found[0] / "in/it").is_dir()
