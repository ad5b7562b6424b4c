"""What the lab asks of the machine it runs on, and how it gets it."""

import os
import shutil

from lab import processes
from lab.state import STATE, LabError, run, say

# A program the lab runs, and the Debian or Ubuntu package that has it.
PROGRAMS = {
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "zstd": "zstd",
}
MB_PER_HOST = 500


def need_root() -> None:
    """Raise LabError unless this is root: hosts need namespaces, mounts and a bridge."""
    if os.geteuid() != 0:
        raise LabError("The lab needs root: run it again with sudo.")


def prepare(hosts: int) -> None:
    """Check the machine and install what is missing.

    Raises LabError, with the fix, when the machine cannot run a lab of so many hosts.
    """
    need_root()
    if not shutil.which("apt-get"):
        raise LabError("The lab runs on Debian and Ubuntu: this machine has no apt-get.")
    _install_missing()
    processes.hierarchy()
    if "overlay" not in run(["cat", "/proc/filesystems"]):
        run(["modprobe", "overlay"])
    STATE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(STATE).free >> 20
    if free < hosts * MB_PER_HOST:
        raise LabError(
            f"{STATE} has {free} MB free and {hosts} hosts need {hosts * MB_PER_HOST}: "
            "free some, or ask for fewer with --hosts."
        )


def _install_missing() -> None:
    missing = {package for program, package in PROGRAMS.items() if not shutil.which(program)}
    if not os.path.exists("/usr/share/keyrings/debian-archive-keyring.gpg"):  # noqa: PTH110
        missing.add("debian-archive-keyring")
    if not missing:
        return
    say(f"installing {' '.join(sorted(missing))} with apt-get")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *sorted(missing)]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run([*quiet, "apt-get", "update"])
    run([*quiet, *install])
