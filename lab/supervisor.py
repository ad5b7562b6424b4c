"""Keep one host running: boot it, and boot it again each time it reboots.

Runs as a process of its own, in the lab's network namespace and in a mount namespace of its own:
the host's overlay is mounted here only and is gone with this process, however it ends.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from lab.processes import ENTER, kill

# What nspawn exits with (under --keep-unit) when the host inside rebooted: systemd's own
# template unit systemd-nspawn@.service restarts on it.
REBOOTED = 133

# The reasons are in docs/decisions/0002-lab-nspawn.md.
NSPAWN = (
    "systemd-nspawn",
    "--quiet",
    "--boot",
    "--register=no",
    "--keep-unit",
    "--capability=all",
    "--system-call-filter=@keyring bpf @privileged",
    "--resolv-conf=off",
    "--timezone=off",
    "--link-journal=no",
    "--console=pipe",
)


def _log(what: str) -> None:
    sys.stdout.write(f"lab: {what}\n")
    sys.stdout.flush()


def mount(host: Path, image: Path) -> None:
    """Mount the host's disk, and hide what nspawn leaves behind from its next boot."""
    layers = f"lowerdir={image},upperdir={host}/upper,workdir={host}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "lab", host / "root"], check=True)
    # nspawn keeps locks and a "propagate" folder per machine name here and fails to remove them.
    Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "lab", "/run/systemd/nspawn"], check=True)


def boot(host: Path, group: Path, bridge: str) -> int:
    """Boot the host once and return nspawn's exit status when it went down."""
    kill(group)
    group.mkdir(parents=True)
    options = [
        f"--machine={host.name}",
        f"--directory={host}/root",
        f"--bind={host}/docker:/var/lib/docker",
        f"--network-bridge={bridge}",
    ]
    # cgroup v2 inside even where the machine has both: systemd 256 and later want nothing else.
    environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    argv = ["sh", "-c", ENTER, str(group / "cgroup.procs"), *NSPAWN, *options]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, env=environment, check=False).returncode


def main() -> None:
    """Boot, and boot again after a reboot; end when the host is powered off."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", type=Path, required=True, help="the host's directory")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--group", type=Path, required=True, help="a control group to boot in")
    parser.add_argument("--bridge", required=True)
    options = parser.parse_args()

    mount(options.host, options.image)
    while True:
        _log(f"booting at {time.strftime('%F %T')}")
        status = boot(options.host, options.group, options.bridge)
        if status != REBOOTED:
            break
        _log("rebooted")
    _log("powered off" if status == 0 else f"nspawn failed with status {status}")
    (options.host / "ended").write_text("powered off" if status == 0 else f"failed ({status})")


if __name__ == "__main__":
    main()
