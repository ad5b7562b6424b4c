"""What the lab asks of the machine it runs on, and how it gets it."""

import os
import shutil
from pathlib import Path

from lab import processes
from lab.state import STATE, Lab, LabError, lock, read_json, run, say, write_json

# A program the lab runs, and the Debian or Ubuntu package that has it.
PROGRAMS = {
    "dpkg-deb": "dpkg",
    "go": "golang-go",
    "gpg": "gpg",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ssh": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "zstd": "zstd",
}
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MB_PER_HOST = 500
MB_FOR_DIFY = 3000

# What the machine must allow at least: hosts leave through it, and each systemd takes seven of
# root's inotify instances, of which Debian allows 128.
SYSCTLS = {"net/ipv4/ip_forward": 1, "fs/inotify/max_user_instances": 1024}


def need_root() -> None:
    """Raise LabError unless this is root: hosts need namespaces, mounts and a bridge."""
    if os.geteuid() != 0:
        raise LabError("The lab needs root: run it again with sudo.")


def prepare(hosts: int, *, dify: bool = False) -> None:
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
    STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
    free = shutil.disk_usage(STATE).free >> 20
    needed = hosts * MB_PER_HOST + (MB_FOR_DIFY if dify else 0)
    if free < needed:
        raise LabError(
            f"{STATE} has {free} MB free and {hosts} hosts need {needed}: "
            "free some, or ask for fewer with --hosts."
        )


def settle() -> None:
    """Raise the machine's settings where they are too low, and remember what they were."""
    with lock("machine", "waiting for another lab"):
        before = read_json(STATE / "sysctls.json")
        for name, least in SYSCTLS.items():
            now = int(_sysctl(name).read_text())
            if now < least:
                # Remembered before it is changed: we may be killed in between.
                before.setdefault(name, now)
                write_json(STATE / "sysctls.json", before)
                _sysctl(name).write_text(str(least))


def restore(lab: Lab) -> None:
    """Put the settings back to what they were before the first lab, once no other needs them."""
    with lock("machine", "waiting for another lab"):
        record = STATE / "sysctls.json"
        if set(read_json(STATE / "labs.json")) - {lab.id}:
            return
        for name, before in read_json(record).items():
            if int(_sysctl(name).read_text()) == SYSCTLS.get(name):  # else someone else changed it
                _sysctl(name).write_text(str(before))
        record.unlink(missing_ok=True)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys") / name


def _install_missing() -> None:
    with lock("packages", "waiting for another lab that installs programs"):
        _install(_missing())


def _missing() -> set[str]:
    missing = {package for program, package in PROGRAMS.items() if not shutil.which(program)}
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    return missing


def _install(missing: set[str]) -> None:
    if not missing:
        return
    say(f"installing {' '.join(sorted(missing))} with apt-get")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *sorted(missing)]
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run([*quiet, "apt-get", "update"])
    run([*quiet, *install])
