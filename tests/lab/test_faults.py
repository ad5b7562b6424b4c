"""What a year brings: killed deploys, cut power, full disks, an upstream that is not what it was.

What is here is seen from a deploy. How the loader of models, the firewall's trial and apt come
through it is in the files of their own.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from lab import hosts, network
from lab.state import every_host, find
from tests.lab.conftest import BIN, COMPILED, ROOT, LabUnderTest, published_sha256
from tests.lab.test_run import cut_off, failed_hosts, wait_until

pytestmark = [
    pytest.mark.slow,
    # A host that is booted again has a supervisor that outlives what started it, as it is to.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

INVENTORY = Path("tests/lab/inventories/roles.py")
ROLES = {"gpu1": "gpu", "gpu2": "gpu", "edge": "gateway"}
POINTS = 20
# Operations between two points: a deploy of three hosts has a few more than all of them.
EACH = 2.7
NEWER = "0.32.8"


@pytest.fixture(scope="module")
def upgrade(bare_lab: LabUnderTest) -> list[str]:
    """Options that change something of every capability."""
    return data(
        f"ollama_version={NEWER}",
        f"ollama_sha256={published_sha256(bare_lab, NEWER)}",
        "ollama_keep_alive=9m",
        "gateway_max_body=70",
        "firewall_open_tcp=[9000]",
    )


def data(*settings: str) -> list[str]:
    return [word for item in settings for word in ("--data", item)]


@contextmanager
def deploying(lab: LabUnderTest, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A deploy that runs; ended with the block."""
    process = subprocess.Popen(
        [BIN / "pyinfra", INVENTORY, "deploy.py", "-y", *words],
        cwd=ROOT,
        env=os.environ
        | COMPILED
        | {"LLM_FLEET_LAB_ID": lab.id, "PYINFRA_PROGRESS": "off", "ROLES": json.dumps(ROLES)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_step(process: subprocess.Popen[str], is_it: Callable[[int, str], bool]) -> str:
    """Read on until the step that `is_it`, by its number and its line; empty if there is none."""
    assert process.stdout
    number = 0
    for line in process.stdout:
        if line.startswith("--> Starting operation"):
            number += 1
            if is_it(number, line):
                return line
    return ""


def killed_all_along(lab: LabUnderTest, words: list[str]) -> list[str]:
    """Deploys of which each is killed a little later than the one before; in which steps.

    Each goes on from what the one before has left, so each is killed in what no run has done yet:
    at its beginning, or in the middle of its commands.
    """
    steps: list[str] = []
    for point in range(1, POINTS + 1):
        with deploying(lab, *words) as process:
            step = until_step(process, lambda number, _, at=int(point * EACH): number == at)  # type: ignore[misc]
            assert step, f"no step {int(point * EACH)}; killed so far: {steps}"
            time.sleep(0.25 * (point % 3))
            process.kill()
        steps.append(step)
    return steps


def deploy(lab: LabUnderTest, *words: str) -> dict[str, list[str]]:
    return lab.deploy(*words, inventory=INVENTORY, ROLES=json.dumps(ROLES))


def failing(lab: LabUnderTest) -> dict[str, list[str]]:
    return lab.failing(inventory=INVENTORY, ROLES=json.dumps(ROLES))


def reasons(lab: LabUnderTest, *words: str) -> dict[str, str]:
    """Why each host failed in a deploy that must fail."""
    result = lab.pyinfra("-y", *words, inventory=INVENTORY, check=False, ROLES=json.dumps(ROLES))
    assert result.returncode == 1, result.stderr
    return failed_hosts(result.stderr)


def cut_power(lab: LabUnderTest, name: str) -> None:
    """End a host at once, and boot it again."""
    own = find(lab.id)
    assert own
    host = next(item for item in every_host() if item.name == name)
    image = hosts.image_of(own, name)
    hosts.stop(own, name)
    hosts.up(own, host, image)


def break_upstream(lab: LabUnderTest, *faults: dict[str, Any]) -> None:
    own = find(lab.id)
    assert own
    port = lab.state["upstream"]["url"].rpartition(":")[2]
    here = f"http://{own.address(network.UPSTREAM)}:{port}"
    requests.put(f"{here}/_lab/faults", json=list(faults), timeout=10).raise_for_status()


def running(lab: LabUnderTest, host: str) -> str:
    return lab.ssh(host, "readlink /proc/$(systemctl show --value -p MainPID ollama)/exe")


def release(version: str) -> str:
    return f"/opt/ollama/{version}/bin/ollama"


def test_a_first_deploy_that_is_killed_anywhere_is_finished_by_the_next(
    bare_lab: LabUnderTest,
) -> None:
    steps = killed_all_along(bare_lab, [])
    assert len(set(steps)) == POINTS
    deploy(bare_lab)
    assert deploy(bare_lab) == {}
    assert failing(bare_lab) == {}


@pytest.fixture(scope="module")
def lab(bare_lab: LabUnderTest) -> LabUnderTest:
    """The fleet, deployed."""
    deploy(bare_lab)
    return bare_lab


def test_an_upgrade_that_is_killed_anywhere_is_finished_by_the_next(
    lab: LabUnderTest, upgrade: list[str]
) -> None:
    killed_all_along(lab, upgrade)
    deploy(lab, *upgrade)
    assert deploy(lab, *upgrade) == {}
    assert [running(lab, name) for name in ("gpu1", "gpu2")] == [release(NEWER)] * 2
    deploy(lab)
    assert failing(lab) == {}


@pytest.mark.parametrize(
    ("step", "delay"),
    [
        ("Install Ollama", 1.0),
        ("Install the configuration", 0.2),
        ("Apply the ruleset", 0.5),
        ("Provide the models", 1.0),
    ],
    ids=["fetch and unpack", "write", "trial of the firewall", "pull"],
)
def test_power_cut(lab: LabUnderTest, upgrade: list[str], step: str, delay: float) -> None:
    """All hosts at once, in the middle of a step: they boot, and the next deploy finishes it."""
    for name in ("gpu1", "gpu2"):
        lab.ssh(name, f"rm -rf /opt/ollama/{NEWER}* /var/lib/ollama/models/manifests/*")
    with deploying(lab, *upgrade) as process:
        assert until_step(process, lambda _, line: step in line), step
        time.sleep(delay)
        for name in ROLES:
            cut_power(lab, name)
        process.communicate(timeout=180)
        assert process.returncode == 1
    deploy(lab, *upgrade)
    assert deploy(lab, *upgrade) == {}
    deploy(lab)


def test_half_a_minute_without_a_network_is_gone_through(lab: LabUnderTest) -> None:
    with deploying(lab, *data("ollama_keep_alive=8m")) as process:
        assert until_step(process, lambda _, line: "Install the unit" in line)
        with cut_off(lab, "gpu1"):
            time.sleep(30)
        output = process.communicate(timeout=180)[0]
    assert process.returncode == 0, output[-4000:]
    assert deploy(lab, *data("ollama_keep_alive=8m")) == {}
    deploy(lab)


@contextmanager
def full(lab: LabUnderTest, path: str, mib: int) -> Iterator[None]:
    """On gpu1, `path` on a disk of its own with what it holds and room for `mib` MiB, all taken."""
    lab.ssh(
        "gpu1",
        f"set -e; size=$(($(du -sm {path} | cut -f1) + {mib} + 8)); cp -a {path} /root/kept;"
        f" mount -t tmpfs -o size=${{size}}m,mode=755 small {path}; cp -a /root/kept/. {path}/;"
        f" dd if=/dev/zero of={path}/.full bs=64k 2>/dev/null || true",
    )
    try:
        yield
    finally:
        lab.ssh("gpu1", f"umount -l {path}; rm -rf /root/kept")


@pytest.mark.parametrize(
    ("path", "setting"),
    [
        ("/opt/ollama", ""),
        ("/etc/llm-fleet", "gateway"),
        ("/var/lib/llm-fleet", "ollama_keep_alive=7m"),
    ],
)
def test_full_disk(lab: LabUnderTest, upgrade: list[str], path: str, setting: str) -> None:
    """It is said in words, the others go on, what runs does so too, and room is all it takes."""
    lab.ssh("gpu1", f"rm -rf /opt/ollama/{NEWER}*")
    words = data(setting) if "=" in setting else upgrade
    with full(lab, path, 1):
        before = lab.ssh("gpu1", f"find {path} | sort")
        found = reasons(lab, *words)
        assert list(found) == ["gpu1"], found
        assert "No space left on device" in found["gpu1"] or "make room there" in found["gpu1"], (
            found
        )
        assert lab.ssh("gpu1", f"find {path} | sort") == before, "something is left half"
        assert lab.ssh("gpu1", "systemctl is-active ollama") == "active"
    deploy(lab, *words)
    assert deploy(lab, *words) == {}
    deploy(lab)


def test_an_upstream_that_is_gone_slow_wrong_or_silent(
    lab: LabUnderTest, upgrade: list[str]
) -> None:
    """What runs goes on; why there is no release is said; what comes in pieces is put together."""
    for name in ("gpu1", "gpu2"):
        lab.ssh(name, f"rm -rf /opt/ollama/{NEWER}*")
    path = f".*/v{NEWER}/.*\\.tar\\.zst"
    try:
        for fault, said in (
            ({"status": 404}, "the server says 404; nothing was installed"),
            ({"wrong_at": 5000}, "SHA-256 expected"),
        ):
            break_upstream(lab, {"path": path, **fault})
            found = reasons(lab, *upgrade)
            assert list(found) == ["gpu1", "gpu2"], found
            assert all(said in why for why in found.values()), found
            assert running(lab, "gpu1") == release("0.32.7")
        break_upstream(
            lab,
            # It takes the connection, and says nothing more for as long as it is waited for.
            {"path": path, "stall_at": 0, "times": 2},
            {"path": path, "cut_at": 100_000, "times": 4},
            {"path": path, "rate": 4_000_000},
        )
        deploy(lab, *upgrade)
    finally:
        break_upstream(lab)
    assert running(lab, "gpu1") == release(NEWER)
    deploy(lab)


def test_a_clock_that_is_wrong(lab: LabUnderTest) -> None:
    """It is that host's alone, by a doctor and by a deploy, and nothing is changed there.

    All hosts of the lab have one kernel's time, so it is what tells it that is wrong.
    """
    lab.ssh(
        "gpu1",
        'printf \'#!/bin/sh\\nexec /usr/bin/date -d "2 days ago" "$@"\\n\' >/usr/local/bin/date;'
        " chmod 755 /usr/local/bin/date",
    )
    before = lab.ssh("gpu1", "cat /etc/systemd/system/ollama.service")
    try:
        found = reasons(lab, *data("ollama_keep_alive=4m"))
        assert list(found) == ["gpu1"]
        assert "its clock is -1728" in found["gpu1"]
        assert "run a time service there" in found["gpu1"]
        assert lab.ssh("gpu1", "cat /etc/systemd/system/ollama.service") == before
        told = lab.fleet("doctor", INVENTORY, check=False, ROLES=json.dumps(ROLES))
        assert told.returncode == 1
        assert "its clock is -1728" in told.stdout
    finally:
        lab.ssh("gpu1", "rm /usr/local/bin/date")
    deploy(lab)


def test_a_unit_that_does_not_start_leaves_the_one_that_runs(lab: LabUnderTest) -> None:
    """... and what it said in this run is shown, not what it had said long before."""
    lab.ssh("gpu1", "logger -t ollama 'said long before'; sleep 1")
    before = lab.ssh("gpu1", "systemctl show -p MainPID --value ollama")
    words = data('ollama_env={"GOMEMLIMIT": "lots"}')
    result = lab.pyinfra("-y", *words, inventory=INVENTORY, check=False, ROLES=json.dumps(ROLES))
    assert {"gpu1", "gpu2"} <= set(failed_hosts(result.stderr))
    assert "malformed GOMEMLIMIT" in result.stderr
    assert "said long before" not in result.stderr
    assert lab.ssh("gpu1", "systemctl show -p MainPID --value ollama") == before
    assert deploy(lab) == {}


def test_one_of_three_is_down(lab: LabUnderTest) -> None:
    own = find(lab.id)
    assert own
    hosts.stop(own, "gpu2")
    try:
        found = reasons(lab, *data("ollama_keep_alive=6m"))
        assert list(found) == ["gpu2"]
        environment = "tr '\\0' '\\n' </proc/$(systemctl show --value -p MainPID ollama)/environ"
        assert "OLLAMA_KEEP_ALIVE=6m" in lab.ssh("gpu1", environment)
    finally:
        cut_power(lab, "gpu2")
    deploy(lab)
    assert deploy(lab) == {}


def test_all_reboot_at_once(lab: LabUnderTest) -> None:
    """Everybody is well again, and no deploy is needed for it."""
    for name in ROLES:
        lab.ssh(name, "touch /run/before; systemctl reboot", check=False)
    for name in ROLES:
        wait_until(
            lambda name=name: (
                lab.ssh(name, "test -e /run/before || echo new", check=False)  # type: ignore[misc]
                == "new"
            ),
            120,
        )
        lab.ssh(name, "systemctl is-system-running --wait", check=False)
    assert failing(lab) == {}
    assert deploy(lab) == {}
