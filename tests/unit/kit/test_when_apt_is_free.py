"""The one way to apt, as it is, against locks that other processes really hold."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[3] / "fleet" / "kit" / "on_host" / "when-apt-is-free"
LISTS = "var/lib/apt/lists/lock"
LOCKS = ["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", LISTS, "var/cache/apt/archives/lock"]
HOLD = """
import fcntl, sys, time
from pathlib import Path
lock = open(sys.argv[1], "a")
fcntl.lockf(lock, fcntl.LOCK_EX)
print(Path("/proc/self/comm").read_text().strip(), flush=True)
time.sleep(float(sys.argv[2]))
"""
BLOCK_STORAGE = "E: Could not get lock of http://mirror/vendor-block-storage: 404"


class Host:
    """Root's part of a host below a folder: the locks, and an apt-get that tells how it was run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for lock in LOCKS:
            (root / lock).parent.mkdir(parents=True, exist_ok=True)
            (root / lock).touch()
        (root / "bin").mkdir()
        self.program("dpkg-query", "exit 0")
        for name in ("apt-get", "apt-mark", "dpkg"):
            self.program(name, f'echo "$(basename "$0") $*" >> {root}/ran; cat >> {root}/stdin')

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    @property
    def text(self) -> str:
        """The program, for the locks of this host."""
        return (
            PROGRAM.read_text()
            .replace(" /var/", f" {self.root}/var/")
            .replace("\t/var/", f"\t{self.root}/var/")
            .replace(" /etc/apt/", f" {self.root}/etc/apt/")
        )

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run it as a deploy does: the program on standard input."""
        path = f"{self.root / 'bin'}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", "-s", "--", *words],
            input=self.text, capture_output=True, text=True, check=check, timeout=60,
            env=os.environ | {"PATH": path},
        )  # fmt: skip

    @property
    def ran(self) -> list[str]:
        """The commands that were run."""
        ran = self.root / "ran"
        return ran.read_text().splitlines() if ran.exists() else []

    @contextmanager
    def held(self, lock: str, seconds: float) -> Iterator[str]:
        """With another process that holds `lock` for some seconds; its name and id."""
        command = [sys.executable, "-c", HOLD, str(self.root / lock), str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            name = holder.stdout.readline().strip()
            try:
                yield f"{name} ({holder.pid})"
            finally:
                holder.kill()


@pytest.fixture
def a_host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.parametrize("lock", LOCKS)
def test_waits_for_each_lock_and_says_for_whom(a_host: Host, lock: str) -> None:
    began = time.monotonic()
    with a_host.held(lock, 2) as holder:
        done = a_host.run("30", "apt-get", "update")
    assert time.monotonic() - began > 1.9
    # A second may have gone by before the look.
    said = done.stderr.replace("up to 29 s", "up to 30 s")
    assert said == f"waits up to 30 s: {a_host.root}/{lock} is held by {holder}\n"
    assert len(a_host.ran) == 1


def test_waits_for_nobody_when_all_is_free(a_host: Host) -> None:
    began = time.monotonic()
    assert a_host.run("30", "apt-get", "update").stderr == ""
    assert time.monotonic() - began < 15
    for lock in LOCKS:
        (a_host.root / lock).unlink()
    a_host.run("30", "apt-get", "update")
    assert len(a_host.ran) == 2


def test_error_that_speaks_of_a_lock_fails_at_once(a_host: Host) -> None:
    a_host.program(
        "apt-get", f"echo ran >> {a_host.root}/ran; echo '{BLOCK_STORAGE}' >&2; exit 100"
    )
    began = time.monotonic()
    done = a_host.run("30", "apt-get", "update", check=False)
    assert time.monotonic() - began < 15
    assert (done.returncode, a_host.ran) == (100, ["ran"])
    assert done.stderr == f"{BLOCK_STORAGE}\n"


def test_lock_that_somebody_got_first_is_waited_for_too(a_host: Host) -> None:
    """Between the look and the command: apt then fails with the status of every error."""
    lock, ran = a_host.root / LISTS, a_host.root / "ran"
    (a_host.root / "hold.py").write_text(HOLD)
    a_host.program(
        "apt-get",
        f"echo ran >> {ran}; [ $(wc -l < {ran}) = 1 ] || exit 0\n"
        f"{sys.executable} {a_host.root}/hold.py {lock} 2 > {a_host.root}/said 2>/dev/null &\n"
        f"until [ -s {a_host.root}/said ]; do sleep .05; done; exit 100",
    )
    done = a_host.run("30", "apt-get", "update")
    assert a_host.ran == ["ran", "ran"]
    assert f"{lock} is held by" in done.stderr


def test_patience_ends(a_host: Host) -> None:
    with a_host.held(LISTS, 30):
        done = a_host.run("1", "apt-get", "update", check=False)
    assert done.returncode == 1
    assert f"waited in vain: {a_host.root}/{LISTS} is held by" in done.stderr
    assert a_host.ran == []


def test_same_inode_elsewhere_is_another_file(a_host: Host) -> None:
    """A hard link stands for the file of another file system that has the lock's number."""
    os.link(a_host.root / LISTS, a_host.root / "database")
    with a_host.held("database", 30):
        began = time.monotonic()
        assert a_host.run("30", "apt-get", "update").stderr == ""
        assert time.monotonic() - began < 15


def test_nothing_asks(a_host: Host) -> None:
    a_host.program("apt-get", 'echo "$DEBIAN_FRONTEND $NEEDRESTART_MODE"; echo "$*"; cat')
    said = a_host.run("30", "apt-get", "install", "-y", "a package").stdout
    # A second may have gone by before.
    assert said.replace("Timeout=29", "Timeout=30").splitlines() == [
        "noninteractive l",
        "-q -o DPkg::Lock::Timeout=30 -o APT::Update::Error-Mode=any"
        " -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
        " install -y a package",
    ]
    a_host.run("30", "dpkg", "--configure", "-a")
    a_host.run("30", "apt-mark", "hold", "curl")
    assert a_host.ran == [
        "dpkg --force-confdef --force-confold --configure -a",
        "apt-mark hold curl",
    ]
    # Nor of whoever runs it by hand.
    program = a_host.root / "when-apt-is-free"
    program.write_text(a_host.text)
    path = f"{a_host.root / 'bin'}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", program, "30", "dpkg", "--configure", "-a"],
        input="an answer", text=True, check=True, env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert (a_host.root / "stdin").read_text() == ""


def test_tells_who_holds_a_lock(a_host: Host) -> None:
    assert a_host.run().stdout == ""
    with a_host.held(LISTS, 30) as holder:
        assert a_host.run().stdout == f"{a_host.root}/{LISTS} is held by {holder}\n"


def test_source_that_does_not_answer_is_named_with_its_file(a_host: Host) -> None:
    folder = a_host.root / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    (folder / "vendor.sources").write_text("Types: deb\nURIs: http://mirror/vendor/\nSuites: /\n")
    (folder / "other.list").write_text("deb [trusted=yes] http://mirror/other stable main\n")
    (folder / "old.list").write_text("# deb http://mirror/vendor stable main\n")
    failed = "Failed to fetch http://mirror/vendor/InRelease  Temporary failure resolving 'mirror'"
    a_host.program("apt-get", f'echo "W: of http://mirror/other\nE: {failed}" >&2; exit 100')
    done = a_host.run("30", "apt-get", "update", check=False)
    assert done.returncode == 100
    assert done.stderr.splitlines() == [
        "W: of http://mirror/other",
        f"E: {failed}",
        f"http://mirror/vendor/ cannot be read: correct that source in {folder}/vendor.sources, or "
        "remove it",
    ]


# Rows as dpkg-query prints them: state, version that was configured, package and what it needs.
CUT = {
    "as apt unpacks it": "installed\t\tweb-common, libc6\nunpacked\t\tweb, web-common (= 1), libc6",
    "in its first configuration": "half-configured\t\tweb, iproute2 | web-common (>= 1:0~)",
}
WHOLE = {
    "whole": "installed\t\tweb, web-common",
    "an upgrade, of what ran before": "half-configured\t1.0\tweb, web-common",
    "removed": "config-files\t1.0\tweb, web-common",
}


def _services(a_host: Host, rows: str, state: str) -> list[str]:
    """What systemctl is told while dpkg was cut short with `rows`; web.service is in `state`."""
    a_host.program(
        "dpkg-query",
        f"case $1 in -W) printf '{rows}\\n' ;; -L) shift; for p; do case $p in web-common)\n"
        "printf '/usr/lib/systemd/system/%s\\n' web.service web@.service web.timer web.socket ;;\n"
        "esac; done ;; esac",
    )
    a_host.program(
        "systemctl",
        f'echo "systemctl $*" >> {a_host.root}/ran\n'
        f"case $1 in is-active) [ {state} = active ] ;; show) echo {state} ;; esac",
    )
    a_host.run("30", "dpkg", "--configure", "-a")
    said = ("systemctl mask", "systemctl unmask", "dpkg")
    return [line for line in a_host.ran if line.startswith(said)]


@pytest.mark.parametrize("rows", CUT.values(), ids=CUT)
def test_no_service_is_started_that_never_was(a_host: Host, rows: str) -> None:
    """A repair is no first start: that is made with the declared configuration."""
    assert _services(a_host, rows, "loaded") == [
        "systemctl mask --runtime --quiet web.service",
        "systemctl mask --runtime --quiet web.socket",
        "dpkg --force-confdef --force-confold --configure -a",
        "systemctl unmask --runtime --quiet web.service web.socket",
    ]


@pytest.mark.parametrize("rows", WHOLE.values(), ids=WHOLE)
def test_other_services_are_left_alone(a_host: Host, rows: str) -> None:
    assert len(_services(a_host, rows, "loaded")) == 1


@pytest.mark.parametrize("state", ["active", "masked"])
def test_running_and_masked_services_stay_so(a_host: Host, state: str) -> None:
    assert len(_services(a_host, next(iter(CUT.values())), state)) == 1
