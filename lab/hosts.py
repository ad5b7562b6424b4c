"""The lab's hosts: a disk of their own over a shared image, real systemd, real sshd.

A host's directory holds `upper` (its disk), `docker` (the same for /var/lib/docker, which cannot
be an overlay on an overlay), `console.log`, and `host.json`, which is written last: without it a
host was never finished and is made anew.
"""

import contextlib
import re
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from lab import network, processes
from lab.images import name_of
from lab.state import (
    USERS,
    Host,
    Lab,
    LabError,
    every_host,
    read_json,
    run,
    timed,
    write_json,
)

BOOT_DEADLINE = 60.0

NETWORK = """[Match]
Name=host0
[Network]
IPv6AcceptRA=no
[Address]
Address={address}/24
[Address]
Address={address6}/64
DuplicateAddressDetection=none
[Route]
Gateway={gateway}
"""


def up(lab: Lab, host: Host, image: Path) -> None:
    """Boot a host and wait until one can log in; make it first when there is none."""
    folder = lab.host_dir(host.name)
    if not read_json(folder / "host.json"):
        _make(lab, host, image)
    if not _supervised(lab, host.name):
        _boot(lab, host)
    with timed(f"{host.name}: up with {known(lab)[host.name]['release']}, logged in over SSH"):
        _wait(lab, host)


def remove(lab: Lab, name: str) -> None:
    """End a host at once and delete its disk."""
    stop(lab, name)
    # First the record: what is left of a host when we are killed here is not one.
    (lab.host_dir(name) / "host.json").unlink(missing_ok=True)
    shutil.rmtree(lab.host_dir(name), ignore_errors=True)


def stop(lab: Lab, name: str) -> None:
    """End a host at once, as if its power was cut."""
    # The supervisor first: it would boot what it sees going down.
    processes.kill(processes.group(lab, f"supervisor-{name}"))
    processes.kill(processes.group(lab, f"host-{name}"))
    # The kernel ends the host's network, and with it this link, when it finds the time: the next
    # boot must not meet it.
    with contextlib.suppress(LabError):
        run([*network.inside(lab), "ip", "link", "delete", f"vb-{name}"], check=False)


def known(lab: Lab) -> dict[str, dict[str, Any]]:
    """Return the record of each host that was finished, in the order of the plan."""
    names = [host.name for host in every_host()]
    records = {name: read_json(lab.host_dir(name) / "host.json") for name in names}
    return {name: record for name, record in records.items() if record}


def count_gpus(lab: Lab, name: str, gpus: int) -> None:
    """Have the record of a host say how many GPUs it shows."""
    path = lab.host_dir(name) / "host.json"
    write_json(path, {**read_json(path), "gpus": gpus})


def image_of(lab: Lab, name: str) -> Path:
    """Return the image of a host that was finished."""
    return Path(read_json(lab.host_dir(name) / "host.json")["image"])


def state(lab: Lab, name: str) -> str:
    """Return `up`, `booting`, or why the host is down."""
    if _supervised(lab, name):
        return "up" if _sshd_listens(lab, name) else "booting"
    ended = lab.host_dir(name) / "ended"
    return ended.read_text() if ended.exists() else "not running"


def _supervised(lab: Lab, name: str) -> bool:
    return bool(processes.members(processes.group(lab, f"supervisor-{name}")))


def _make(lab: Lab, host: Host, image: Path) -> None:
    remove(lab, host.name)
    folder = lab.host_dir(host.name)
    for part in ("upper", "work", "root", "docker"):
        (folder / part).mkdir(parents=True)
    (folder / "upper").chmod(0o755)
    _configure(lab, host, folder / "upper")
    _authorize(lab, folder / "upper", image)
    key = _host_key(host, folder / "upper/etc/ssh")
    addresses = [lab.address(host.index), lab.address6(host.index)]
    (folder / "known_hosts").write_text(f"{','.join([host.name, *addresses])} {key}\n")
    record = {
        "gpus": 0,
        "release": name_of(image),
        "image": str(image),
        "groups": host.groups,
        "address": addresses[0],
        "address6": addresses[1],
    }
    write_json(folder / "host.json", record)


def _configure(lab: Lab, host: Host, disk: Path) -> None:
    files = {
        "etc/hostname": f"{host.name}\n",
        "etc/hosts": _hosts_file(lab),
        "etc/machine-id": f"{uuid.uuid4().hex}\n",
        "etc/resolv.conf": _resolvers(),
        "etc/systemd/network/10-lab.network": NETWORK.format(
            address=lab.address(host.index),
            address6=lab.address6(host.index),
            gateway=lab.address(network.CONTROLLER),
        ),
    }
    for name, text in files.items():
        (disk / name).parent.mkdir(parents=True, exist_ok=True)
        (disk / name).write_text(text)


def _hosts_file(lab: Lab) -> str:
    """Name every host this lab can have: a host added later is known to the ones before it."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    named = [(host.name, host.index) for host in every_host()]
    for name, index in [*named, ("upstream.lab", network.UPSTREAM)]:
        lines += [f"{lab.address(index)} {name}", f"{lab.address6(index)} {name}"]
    return "\n".join(lines) + "\n"


def _resolvers() -> str:
    """Return the machine's own name servers; behind a local stub, the ones the stub asks."""
    stub, real = Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")
    return (real if real.exists() else stub).read_text()


def _authorize(lab: Lab, disk: Path, image: Path) -> None:
    key = lab.ssh_key.with_suffix(".pub").read_text()
    for user in USERS:
        uid = _uid(image, user)
        home = disk / ("root" if user == "root" else f"home/{user}")
        folder = home / ".ssh"
        folder.mkdir(parents=True, mode=0o700)
        (folder / "authorized_keys").write_text(key)
        (folder / "authorized_keys").chmod(0o600)
        # A folder of the upper layer stands for the image's own: it needs the same owner and mode.
        home.chmod(0o700)
        for path in (home, folder, folder / "authorized_keys"):
            shutil.chown(path, uid, uid)


def _uid(image: Path, user: str) -> int:
    rows = [line.split(":") for line in (image / "etc/passwd").read_text().splitlines()]
    return next(int(row[2]) for row in rows if row[0] == user)


def _host_key(host: Host, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    key = folder / "ssh_host_ed25519_key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"root@{host.name}", "-f", key])
    return " ".join(key.with_suffix(".pub").read_text().split()[:2])


def _boot(lab: Lab, host: Host) -> None:
    folder = lab.host_dir(host.name)
    (folder / "ended").unlink(missing_ok=True)
    image = read_json(folder / "host.json")["image"]
    supervisor = [sys.executable, "-m", "lab.supervisor", "--host", str(folder), "--image", image]
    options = [
        "--group",
        str(processes.group(lab, f"host-{host.name}")),
        "--bridge",
        network.BRIDGE,
    ]
    own_mounts = ["unshare", "--mount", "--propagation", "slave", "--"]
    processes.start(
        lab,
        f"supervisor-{host.name}",
        [*network.inside(lab), *own_mounts, *supervisor, *options],
        log=folder / "console.log",
    )


def _wait(lab: Lab, host: Host) -> None:
    end = time.monotonic() + BOOT_DEADLINE
    while not (_sshd_listens(lab, host.name) and _login_works(lab, host.name)):
        ended = not _supervised(lab, host.name)
        if ended or time.monotonic() > end:
            why = (
                state(lab, host.name)
                if ended
                else f"no login over SSH within {BOOT_DEADLINE:.0f} s"
            )
            console = (lab.host_dir(host.name) / "console.log").read_text(errors="replace")
            tail = "\n".join(console.splitlines()[-25:])
            raise LabError(
                f"{host.name} did not boot: {why}. `lab reset {host.name}` makes it anew. "
                f"The end of its console:\n{tail}"
            )
        time.sleep(0.05)


def _sshd_listens(lab: Lab, name: str) -> bool:
    """Look from inside the host: a probe that connects and leaves is what sshd bans for a while.

    OpenSSH 9.8's PerSourcePenalties would then refuse the next real login from this machine.
    """
    init = processes.group(lab, f"host-{name}") / "payload/init.scope/cgroup.procs"
    try:
        network_of = Path("/proc", init.read_text().split()[0], "net")
        sockets = "".join((network_of / name).read_text() for name in ("tcp", "tcp6"))
    except (OSError, IndexError):
        return False
    return re.search(r":0016 0+:0000 0A", sockets) is not None  # port 22, any peer, LISTEN


def ssh(lab: Lab, name: str, user: str = "root") -> list[str]:
    """Return the words of an ssh command line that logs in to a host, checking its own key."""
    folder = lab.host_dir(name)
    known = ["-o", f"UserKnownHostsFile={folder / 'known_hosts'}"]
    strict = [*known, "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]
    address = read_json(folder / "host.json")["address"]
    # What keeps a secret from a later quantum computer costs most of a login, on both sides.
    quick = ["-o", "KexAlgorithms=curve25519-sha256"]
    return ["ssh", "-F", "none", "-i", str(lab.ssh_key), *strict, *quick, f"{user}@{address}"]


def _login_works(lab: Lab, name: str) -> bool:
    batch = ["-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    words = ssh(lab, name)
    return (
        subprocess.run(
            [*words[:1], *batch, *words[1:], "true"], capture_output=True, check=False
        ).returncode
        == 0
    )
