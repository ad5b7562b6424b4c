"""The program that pulls an image, against a Docker that takes its time and its room."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fleet.declare.fleet import PRODUCT_ROOT

PROGRAM = PRODUCT_ROOT / "fleet" / "kit" / "on_host" / "pull-image"
RESERVE = 2_000_000_000


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs come first: `free` holds what `stat -f` tells, line by line."""
    _tool(tmp_path, "sleep", "exec /bin/sleep 0.05")
    _tool(
        tmp_path, "stat",
        f"cd {tmp_path}; head -n 1 free; [ $(wc -l <free) = 1 ] || sed -i 1d free",
    )  # fmt: skip
    _docker(tmp_path, "echo sha256:ab")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def _tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def _docker(folder: Path, pull: str) -> None:
    _tool(folder, "docker", f'[ "$1" = pull ] || {{ echo /data/docker; exit; }}\n{pull}')


def _run(host: Path, *free: int) -> subprocess.CompletedProcess[str]:
    (host / "free").write_text("".join(f"{count} * 1\n" for count in free))
    return subprocess.run(
        [PROGRAM, "team/app:1"], check=False, capture_output=True, text=True, timeout=20
    )


def test_pulled(host: Path) -> None:
    done = _run(host, RESERVE + 1)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sha256:ab\n", "")


def test_failure_is_dockers_own(host: Path) -> None:
    _docker(host, "echo 'manifest unknown' >&2; exit 7")
    done = _run(host, RESERVE + 1)
    assert (done.returncode, done.stderr) == (7, "manifest unknown\n")


def test_no_room_to_begin_with(host: Path) -> None:
    _docker(host, f"touch {host}/pulled")
    done = _run(host, RESERVE)
    assert done.returncode == 1
    assert "team/app:1: leaves less than 2000 MB free in /data/docker, where 2000 MB" in done.stderr
    assert "nothing was pulled" in done.stderr
    assert not (host / "pulled").exists()


def test_given_up_where_it_comes_to_the_reserve(host: Path) -> None:
    _docker(host, f"trap 'touch {host}/ended; exit 1' TERM; for i in $(seq 400); do sleep; done")
    done = _run(host, *[RESERVE + 1] * 5, RESERVE - 1)
    assert done.returncode == 1
    assert "the pull was given up" in done.stderr
    assert (host / "ended").exists(), "Docker was not told"
