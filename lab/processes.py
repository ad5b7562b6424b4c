"""The lab's processes: each starts in a control group of the lab's, and is found by it alone.

A control group cannot be left by forking, so that killing the group ends a host with all that
runs on it, and nothing else: no pid file that could be stale, no matching of names. The network
namespaces and the overlay mounts belong to these processes and vanish with them.
"""

import contextlib
import functools
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from lab.state import Lab, LabError

# The sh enters the group before it becomes the program: nothing of it ever runs outside.
ENTER = 'echo 0 > "$0" && exec "$@"'


@functools.cache
def hierarchy() -> Path:
    """Return where cgroup v2 is mounted: alone, or beside v1 ("hybrid")."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, filesystem = line.partition(" - ")
        if filesystem.startswith("cgroup2 "):
            return Path(fields.split()[4])
    raise LabError(
        "cgroup v2 is not mounted: `mount -t cgroup2 none /sys/fs/cgroup/unified` mounts it "
        "beside v1, or boot with systemd.unified_cgroup_hierarchy=1."
    )


def group(lab: Lab, unit: str = "") -> Path:
    """Return the control group of one unit of the lab, or of all of it."""
    return hierarchy() / "llm-fleet-lab" / lab.id / unit


def start(lab: Lab, unit: str, argv: Sequence[str | Path], log: Path | None = None) -> None:
    """Start a program in the unit's control group, detached from this terminal and session."""
    own = group(lab, unit)
    own.mkdir(parents=True, exist_ok=True)
    _delegate(own.parent.parent)
    _delegate(own.parent)
    with (log or Path(os.devnull)).open("ab") as output:
        process = subprocess.Popen(
            ["sh", "-c", ENTER, own / "cgroup.procs", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )
    while not members(own) and process.poll() is None:  # until the sh has entered
        time.sleep(0.005)


def call(lab: Lab, unit: str, argv: Sequence[str | Path], log: Path) -> int:
    """Run a program in the unit's control group and return its exit status."""
    own = group(lab, unit)
    own.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        status = subprocess.run(
            ["sh", "-c", ENTER, own / "cgroup.procs", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    kill(own)
    return status


def _delegate(parent: Path) -> None:
    # Where v2 has the controllers, a host's own systemd and its Docker shall have them too.
    for controller in (parent / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def members(path: Path) -> list[int]:
    """Return the pids in a control group and below it."""
    pids: list[int] = []
    for procs in [path / "cgroup.procs", *path.rglob("*/cgroup.procs")]:
        with contextlib.suppress(OSError):  # a host's own services come and go
            pids += [int(pid) for pid in procs.read_text().split()]
    return pids


def kill(path: Path, deadline: float = 20) -> None:
    """Kill all of a control group and remove it.

    Raises LabError when a process outlives `deadline` seconds (stuck in the kernel).
    """
    end = time.monotonic() + deadline
    while path.is_dir():
        with contextlib.suppress(OSError):
            (path / "cgroup.kill").write_text("1")
        folders = [Path(folder) for folder, _, _ in os.walk(path)]
        with contextlib.suppress(OSError):  # busy: what was killed is not gone yet
            for folder in reversed(folders):
                folder.rmdir()
        if path.is_dir() and time.monotonic() > end:
            raise LabError(f"Processes {members(path)} do not end: see `dmesg`, then try again.")
        time.sleep(0.02)
