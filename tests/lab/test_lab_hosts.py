"""The lab itself, in labs of its own beside the checkout's: what it boots, and that it all goes.

The order matters where a test says so: the hosts of one lab serve most tests.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lab import cli, images, machine, processes, state
from lab.state import CACHE, CHECKOUT, STATE, Lab
from lab.upstream import prepare
from tests.lab.conftest import owned

IDS = tuple(f"{state.default_id()}-{purpose}" for purpose in ("hosts", "killed"))
KNOCK = (sys.executable, "-c", "import socket as s, sys; s.create_connection((sys.argv[1], 22), 1)")


def lab(lab_id: str, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a `lab` command on one of the tests' own labs; its output is the failure's evidence."""
    argv = [sys.executable, "-m", "lab.cli", "--id", lab_id, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=400)
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done


def ssh(name: str, command: str, user: str = "root") -> str:
    return lab(IDS[0], "ssh", "--user", user, name, command).stdout.strip()


def described(lab_id: str = IDS[0]) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((CHECKOUT / f".lab/{lab_id}/lab.json").read_text())
    return description


def eventually(what: str, holds: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def up_again(name: str) -> bool:
    return f"{name} " in "".join(
        line for line in lab(IDS[0], "status", check=False).stdout.splitlines() if "up" in line
    )


def traces() -> dict[str, list[str]]:
    """What a lab could leave on this machine, without what belongs to labs that others run."""
    labs = _numbers()
    links = [link["ifname"] for link in json.loads(state.run(["ip", "-j", "link"]))]
    tables = state.run(["nft", "list", "tables"]).splitlines()
    inhabitants = list(_inhabitants())
    now = _numbers()
    # Files of tests run side by side: another lab may have come or gone while we looked.
    others = {k: n for k, n in {**labs, **now}.items() if k not in IDS}
    theirs = {
        namespace
        for group, namespace in inhabitants
        if any(f"/llm-fleet-lab/{k}/" in group for k in others)
    }
    # A program of another lab is in its group before it is in that lab's network.
    machines = str(Path("/proc/self/ns/net").readlink())
    values = [] if others else [f"{s}={_sysctl(s)}" for s in machine.SYSCTLS]
    return {
        "links": sorted(set(links) - {f"llmlab{n}" for n in others.values()}),
        "mounts": sorted(Path("/proc/self/mounts").read_text().splitlines()),
        "tables": sorted(
            line
            for line in tables
            if line.split()[-1] not in [f"llm_fleet_lab_{n}" for n in others.values()]
        ),
        "namespaces": sorted({namespace for _, namespace in inhabitants} - theirs - {machines}),
        "groups": [i for i in IDS if (processes.hierarchy() / "llm-fleet-lab" / i).exists()],
        "files": [i for i in IDS if (STATE / i).exists() or (CHECKOUT / ".lab" / i).exists()],
        "numbers": [i for i in IDS if i in now],
        # Another lab keeps them raised until it goes.
        "sysctls": values,
        "nspawn": sorted(str(path) for path in Path("/run/systemd/nspawn").glob("**/*")),
    }


def _numbers() -> dict[str, int]:
    return {k: v["number"] for k, v in state.read_json(STATE / "labs.json").items()}


def _sysctl(name: str) -> str:
    return Path(f"/proc/sys/{name}").read_text().strip()


def _inhabitants() -> Iterator[tuple[str, str]]:
    """Each process's control groups, and the network namespace that it is in."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            yield (process / "cgroup").read_text(), str((process / "ns/net").readlink())


def new_since(before: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return what is there now and was not; what others took away meanwhile is not ours."""
    return {k: new for k, v in traces().items() if (new := [i for i in v if i not in before[k]])}


@pytest.fixture(scope="module", autouse=True)
def _leave_nothing() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    with owned(IDS[0]), owned(IDS[1]):
        for lab_id in IDS:
            lab(lab_id, "down")
        try:
            yield
        finally:
            for lab_id in IDS:
                lab(lab_id, "down")


@pytest.fixture(scope="module")
def before() -> dict[str, list[str]]:
    """What there was; of the settings, what they were before any lab raised them."""
    raised = state.read_json(STATE / "sysctls.json")
    values = [f"{name}={raised.get(name, _sysctl(name))}" for name in machine.SYSCTLS]
    return {**traces(), "sysctls": values}


@pytest.fixture(scope="module")
def fleet(before: dict[str, list[str]]) -> dict[str, Any]:
    assert not before["numbers"]
    # Two releases, and the images in the cache: the time below is then the boot's alone.
    lab(IDS[0], "up", "--debian-12", "gpu2")
    lab(IDS[0], "down")
    begun = time.monotonic()
    lab(IDS[0], "up", "--debian-12", "gpu2")
    assert time.monotonic() - begun < 15
    return described()


def test_describes_itself_for_the_inventory(fleet: dict[str, Any]) -> None:
    path = CHECKOUT / f".lab/{IDS[0]}/lab.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert {name: h["groups"] for name, h in fleet["hosts"].items()} == {
        "gpu1": ["gpu"],
        "gpu2": ["gpu"],
        "edge": ["gateway"],
    }
    assert {n: h["release"] for n, h in fleet["hosts"].items()} == {
        "gpu1": "trixie",
        "gpu2": "bookworm",
        "edge": "trixie",
    }
    assert Path(fleet["ssh_key"]).stat().st_mode & 0o777 == 0o600
    assert len(Path(fleet["known_hosts"]).read_text().splitlines()) == 3
    assert len(fleet["upstream"]["ollama_sha256"]) == 64


@pytest.mark.parametrize("name", ["gpu1", "gpu2"])
@pytest.mark.usefixtures("fleet")
def test_is_a_real_bare_host(name: str) -> None:
    assert ssh(name, "systemctl is-system-running --wait") == "running"
    assert ssh(name, "cat /proc/1/comm") == "systemd"
    assert ssh(name, "stat -f -c %T /sys/fs/cgroup") == "cgroup2fs"
    assert ssh(name, "id -un; sudo id -un", user="ops") == "ops\nroot"
    # Nor has a provider's smallest image any of these.
    assert ssh(name, "command -v curl jq nft python3 zstd; true") == ""
    for address in ("edge", f"-6 {described()['hosts']['edge']['address6']}", "upstream.lab"):
        ssh(name, f"ping -c1 -W2 {address}")
    get = r'exec 3<>/dev/tcp/upstream.lab/8080; printf "GET / HTTP/1.0\r\n\r\n" >&3; head -c 4 <&3'
    assert ssh(name, f"bash -c '{get}'") == "HTTP"


@pytest.mark.usefixtures("fleet")
def test_installs_packages_from_the_machines_mirror() -> None:
    ssh("edge", "apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light")
    address = described()["hosts"]["edge"]
    for url in (f"http://{address['address']}/", f"http://[{address['address6']}]/"):
        code = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url]
        assert state.run(code) == "200", "not from the machine"
        assert lab(IDS[0], "exec-foreign", *code).stdout == "200", "not from a foreign host"


@pytest.mark.usefixtures("fleet")
def test_tells_a_foreign_host_from_the_machine() -> None:
    foreign = described()["foreign"]
    rule = f"ip saddr {foreign['address']} drop; ip6 saddr {foreign['address6']} drop"
    ssh("gpu1", "apt-get update -qq && apt-get install -y -qq nftables")
    hook = "type filter hook input priority 0;"
    ssh("gpu1", f"echo 'table inet probe {{ chain input {{ {hook} {rule}; }}; }}' | nft -f -")
    target = described()["hosts"]["gpu1"]
    for address in (target["address"], target["address6"]):
        state.run([*KNOCK, address])
        assert "timed out" in lab(IDS[0], "exec-foreign", *KNOCK, address, check=False).stderr
    ssh("gpu1", "nft delete table inet probe")


@pytest.mark.usefixtures("fleet")
def test_up_again_leaves_running_hosts_alone() -> None:
    boot = ssh("gpu1", "cat /proc/sys/kernel/random/boot_id")
    lab(IDS[0], "up")
    assert ssh("gpu1", "cat /proc/sys/kernel/random/boot_id") == boot


@pytest.mark.parametrize("name", ["gpu1", "gpu2"])
@pytest.mark.usefixtures("fleet")
def test_a_host_that_reboots_comes_back_with_its_disk(name: str) -> None:
    boot = ssh(name, "touch /root/mine; cat /proc/sys/kernel/random/boot_id; cat /etc/machine-id")
    lab(IDS[0], "ssh", name, "reboot", check=False)
    eventually("down", lambda: not up_again(name))
    eventually("up again", lambda: up_again(name))
    again = ssh(name, "ls /root/mine >&2; cat /proc/sys/kernel/random/boot_id /etc/machine-id")
    assert again.split()[0] != boot.split()[0]
    assert again.split()[1] == boot.split()[1]


@pytest.mark.usefixtures("fleet")
def test_a_host_powered_off_stays_off_until_up() -> None:
    ssh("edge", "touch /root/mine")
    lab(IDS[0], "ssh", "edge", "poweroff", check=False)
    eventually("powered off", lambda: "powered off" in lab(IDS[0], "status", check=False).stdout)
    assert lab(IDS[0], "status", check=False).returncode == 1
    lab(IDS[0], "up")
    ssh("edge", "ls /root/mine")


@pytest.mark.usefixtures("fleet")
def test_reset_makes_a_host_bare_within_ten_seconds() -> None:
    keys = Path(described()["known_hosts"]).read_text()
    ssh("edge", "touch /root/mine /var/lib/docker/mine")
    begun = time.monotonic()
    lab(IDS[0], "reset", "edge")
    assert time.monotonic() - begun < 10
    assert ssh("edge", "ls /root/mine /var/lib/docker/mine /usr/sbin/nginx 2>/dev/null; true") == ""
    assert Path(described()["known_hosts"]).read_text() != keys


@pytest.mark.usefixtures("fleet")
def test_says_what_is_wrong_and_what_to_do() -> None:
    assert "gpu1, gpu2, edge" in lab(IDS[0], "ssh", "gpu9", check=False).stderr
    assert (
        "lab reset gpu1 --debian-12" in lab(IDS[0], "up", "--debian-12", "gpu1", check=False).stderr
    )
    assert "gpu1, gpu2, edge" in lab(IDS[0], "up", "--debian-12", "x", check=False).stderr
    assert "lab up" in lab("test-none", "status", check=False).stderr
    assert "no lab id" in lab("../x", "status", check=False).stderr


def test_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("up", "down", "status"):
        result = CliRunner().invoke(cli.main, ["--id", "test-none", command])
        assert result.exit_code == 1
        assert "run it again with sudo" in result.output


def test_a_full_disk_is_named_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 1 << 20))
    result = CliRunner().invoke(cli.main, ["--id", "test-none", "up"])
    assert "--hosts" in result.output
    assert state.find("test-none") is None


def test_down_leaves_nothing(fleet: dict[str, Any], before: dict[str, list[str]]) -> None:
    seen = new_since(before)
    assert {"links", "tables", "namespaces", "groups", "files", "numbers"} <= set(seen), fleet
    lab(IDS[0], "down")
    assert not new_since(before)


# Each point is passed when what it looks for is there, in this order.
POINTS: dict[str, Callable[[Lab], bool]] = {
    "the number": lambda _: True,
    "the namespace": lambda own: processes.group(own, "netns").exists(),
    "the link": lambda own: Path("/sys/class/net", own.link).exists(),
    "the network": lambda own: bool(own.read("network")),
    "a disk": lambda own: own.host_dir("gpu1").exists(),
    "a host": lambda own: (own.host_dir("gpu1") / "host.json").exists(),
    "a supervisor": lambda own: processes.group(own, "supervisor-gpu1").exists(),
    "a boot": lambda own: (processes.group(own, "host-gpu1") / "payload").exists(),
}


@pytest.mark.parametrize("point", POINTS)
def test_an_up_killed_anywhere_is_cleaned_by_down(before: dict[str, list[str]], point: str) -> None:
    _kill_up_at(point)
    lab(IDS[1], "down")
    assert not new_since(before)


def test_a_killed_up_is_finished_by_up(before: dict[str, list[str]]) -> None:
    for point in ("the link", "a disk", "a boot"):
        _kill_up_at(point)
    lab(IDS[1], "up")
    assert list(described(IDS[1])["hosts"]) == ["gpu1", "gpu2", "edge"]
    lab(IDS[1], "status")
    lab(IDS[1], "down")
    assert not new_since(before)


def _kill_up_at(point: str) -> None:
    def reached() -> bool:
        own = state.find(IDS[1])
        return own is not None and POINTS[point](own)

    argv = [sys.executable, "-m", "lab.cli", "--id", IDS[1], "up"]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while process.poll() is None and not reached():
                time.sleep(0.001)
        finally:
            process.kill()


def test_boots_a_root_file_system_that_somebody_published(tmp_path: Path) -> None:
    """Here one of our own, packed, without what the lab gives its hosts."""
    tarball = tmp_path / "some-distribution-1.0-root.tar.xz"
    known = [
        "--exclude=./etc/sudoers.d/ops",
        "--exclude=./etc/systemd/system/multi-user.target.wants",
    ]
    pack = ["tar", "--use-compress-program=xz -0 -T2", "-C", str(images.ensure("trixie")), *known]
    state.run([*pack, "-cf", tarball, "."])
    try:
        lab(IDS[1], "up", "--hosts", "1", "--root", f"gpu1={tarball}")
        assert described(IDS[1])["hosts"]["gpu1"]["release"] == "some-distribution-1.0-root"
        answer = lab(
            IDS[1], "ssh", "--user", "ops", "gpu1", "sudo systemctl is-system-running --wait"
        )
        assert answer.stdout == "running\n"
        lab(IDS[1], "reset", "gpu1")
        other = lab(IDS[1], "up", "--hosts", "1", "--ubuntu-like", "gpu1", check=False)
        assert "gpu1 is made from some-distribution-1.0-root: `lab down`" in other.stderr
    finally:
        lab(IDS[1], "down")
        for image in CACHE.glob("some-distribution-1.0-root-*"):
            shutil.rmtree(image)
    gone = lab(IDS[1], "up", "--root", "gpu1=/nowhere.tar", check=False)
    assert "there is no file /nowhere.tar: write [HOST=]TARBALL" in gone.stderr


def test_a_labs_hosts_and_addresses_do_not_depend_on_how_many_there_are() -> None:
    by_name = {host.name: host for host in state.plan(20)}
    assert len(by_name) == 20
    for count in range(2, 20):
        assert all(by_name[host.name] == host for host in state.plan(count))
    assert state.plan(1)[0].groups == ("gpu", "gateway")
    assert Lab("x", 7).address6(11) == "fd77:0:0:7::b"


def test_a_given_release_is_served_in_place_of_the_stand_in() -> None:
    root = prepare(CACHE).root / "ollama/ollama/releases/download/v0.32.8"
    lab(IDS[1], "up", "--hosts", "1", "--ollama-release", str(root / "ollama-linux-amd64.tar.zst"))
    try:
        upstream = described(IDS[1])["upstream"]
        sums = (root / "sha256sum.txt").read_text()
        assert upstream["ollama_version"] == "0.32.8"
        assert f"{upstream['ollama_sha256']}  ./ollama-linux-amd64.tar.zst" in sums
    finally:
        lab(IDS[1], "down")
