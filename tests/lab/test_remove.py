"""A host loses what it is no more, and all of it when it is removed; what stays was told."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.gateway.paths import GATEWAY_STATE
from tests.lab.conftest import BIN, ROOT, LabUnderTest

INVENTORY = Path("tests/lab/inventories/roles.py")
FULL = {"gpu1": "gpu", "edge": "gpu gateway"}
# What packages make of their own accord, and leave when nothing else is asked of them.
OF_PACKAGES = (
    r"(user|group) (prometheus|_\w+)\b|path /etc/(nginx|letsencrypt)\b"
    r"|path /var/lib/(nginx|systemd|logrotate|prometheus)\b|path /var/log/(nginx|prometheus)"
    r"|path /etc/rc\d\.d/K|path /var/www\b"
)
# Where a deploy writes, or its names: elsewhere, what has come is of a package, as /etc/inputrc is.
WRITTEN = (
    r"(?!path )|path /(opt|srv|var/backups|etc/(systemd|apt|sysctl\.d|modprobe\.d|docker|cdi))\b"
    r"|path /usr/local/(bin|sbin)\b|path .*(llm-fleet|ollama|dify|nvidia|nginx|exporter)"
)
# Everything that no package has brought; what packages make by themselves is told by a program of
# their own, or lies where only they write.
LISTING = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/tmp \
    -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/log/journal \
    -o -path /usr/share -o -path /usr/lib -o -path /root -o -path /var/log/apt \) -prune \
    -o -not -lname '/usr/lib/*' -print | LC_ALL=C sort >/tmp/paths
cat /var/lib/dpkg/info/*.list | LC_ALL=C sort -u | LC_ALL=C comm -23 /tmp/paths - | sed 's/^/path /'
nft list ruleset 2>/dev/null | sed 's/^/nft /'
cut -d: -f1,6 /etc/passwd | sed 's/^/user /'
cut -d: -f1 /etc/group | sed 's/^/group /'
for unit in /etc/systemd/system/*.*; do
    [ -f "$unit" ] && echo "enabled $(systemctl is-enabled "${unit##*/}") ${unit##*/}"
done
systemctl list-units --all --plain --no-legend 'llm-fleet*' 'ollama*' | sed 's/^/unit /'
apt-mark showhold | sed 's/^/hold /'
sysctl net.ipv4.tcp_retries2 net.ipv4.tcp_keepalive_time | sed 's/^/kernel /'
"""


pytestmark = pytest.mark.slow


def listing(lab: LabUnderTest, host: str) -> set[str]:
    return set(lab.ssh(host, LISTING).splitlines())


def environment(lab: LabUnderTest, roles: dict[str, str]) -> dict[str, str]:
    return {"LLM_FLEET_LAB_ID": lab.id, "ROLES": json.dumps(roles)}


def process(lab: LabUnderTest, roles: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BIN / "fleet", "remove", INVENTORY, *words, "--json"],
        cwd=ROOT,
        env=os.environ | environment(lab, roles),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def remove(
    lab: LabUnderTest, *words: str, roles: dict[str, str] = FULL, status: int = 0
) -> dict[str, Any]:
    """`fleet remove --json`, by host; nothing when it ends with 2."""
    with process(lab, roles, *words) as run:
        said, error = run.communicate(timeout=300)
    print(said, error)  # noqa: T201 - pytest shows it when the test fails
    assert run.returncode == status, error
    return {} if status == 2 else json.loads(said)["hosts"]


def left(
    lab: LabUnderTest, host: str, bare: dict[str, set[str]], said: list[dict[str, str]]
) -> str:
    """What a host has more than when it was bare, and nobody has said that it stays."""
    stays = {word for item in said for word in item["what"].split(", ")}

    def is_told(line: str) -> bool:
        kind, _, name = line.partition(" ")
        if kind == "path":
            # What stays is in folders that do.
            return any(
                f"{name}/".startswith(f"{word}/") or word.startswith(f"{name}/") for word in stays
            )
        # A user's own group goes with it.
        who = name.partition(":")[0]
        return f"{kind} {who}" in stays or (kind == "group" and f"user {who}" in stays)

    more = listing(lab, host) - bare[host]
    return "\n".join(
        sorted(
            line
            for line in more
            if re.match(WRITTEN, line) and not re.match(OF_PACKAGES, line) and not is_told(line)
        )
    )


@pytest.fixture(scope="module")
def bare(bare_lab: LabUnderTest) -> dict[str, set[str]]:
    """What the hosts have before any deploy."""
    return {name: listing(bare_lab, name) for name in FULL}


@pytest.fixture(scope="module")
def lab(bare: dict[str, set[str]], bare_lab: LabUnderTest) -> LabUnderTest:
    bare_lab.deploy(inventory=INVENTORY, **environment(bare_lab, FULL))
    return bare_lab


def test_nothing_is_removed_that_nobody_has_said_yes_to(lab: LabUnderTest) -> None:
    before = listing(lab, "gpu1")
    remove(lab, "gpu1", "--dry")
    remove(lab, "gpu1", status=2)
    assert listing(lab, "gpu1") == before


def test_a_host_that_never_was_ours_is_left_alone(lab: LabUnderTest) -> None:
    """... however much on it is called as ours is."""
    lab.ssh(
        "gpu2",
        "printf '[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\n"
        "WantedBy=multi-user.target\\n' >/etc/systemd/system/ollama.service;"
        " systemctl enable -q --now ollama; mkdir -p /opt/ollama/1.0/bin /opt/dify /var/lib/dify"
        " /var/lib/ollama/models/blobs; ln -s 1.0 /opt/ollama/current; useradd -r ollama;"
        " groupadd docker",
    )
    before = listing(lab, "gpu2")
    roles = {**FULL, "gpu2": "gpu"}
    hosts = remove(lab, "gpu2", "--yes", "--models", "--data", roles=roles)
    assert hosts["gpu2"]["removed"] == hosts["gpu2"]["stays"] == []
    assert listing(lab, "gpu2") == before


def test_a_removed_host_has_what_was_said_and_no_more(
    lab: LabUnderTest, bare: dict[str, set[str]]
) -> None:
    """The gateway lets go of it first; models are kept until they are asked for."""
    said = remove(lab, "gpu1", "--yes")["gpu1"]
    assert said["removed"]
    assert "gpu1" in lab.ssh("edge", "cat /etc/llm-fleet/gateway/drained")
    assert left(lab, "gpu1", bare, said["stays"]) == ""
    assert bare["gpu1"] <= listing(lab, "gpu1")
    assert lab.ssh("gpu1", "ls /var/lib/ollama/models/blobs")
    again = remove(lab, "gpu1", "--yes")["gpu1"]
    assert again["removed"] == []
    assert [item for item in again["stays"] if "/var/lib/ollama" in item["what"]]
    models = remove(lab, "gpu1", "--yes", "--models")["gpu1"]
    assert "user ollama" in models["removed"]
    assert lab.ssh("gpu1", "ls -d /var/lib/ollama; getent passwd ollama", check=False) == ""


def test_a_role_is_taken_back_and_a_removed_host_deploys_again(
    lab: LabUnderTest, bare: dict[str, set[str]]
) -> None:
    """The host is no gateway any more: it has neither keys nor a certificate, and serves nobody."""
    roles = environment(lab, {"gpu1": "gpu", "edge": "gpu"})
    assert lab.ssh("edge", "ls /etc/llm-fleet/gateway/tls.key /etc/llm-fleet/gateway/declared.lua")
    changed = lab.deploy(inventory=INVENTORY, **roles)
    assert changed["Roles | Take back what is declared no more"] == ["edge"]
    more = [line for line in listing(lab, "edge") - bare["edge"] if "/var/lib/systemd/" not in line]
    assert not [
        line
        for line in more
        if re.search(r"/gateway/|gateway_|fleet-gateway|nginx\.service|exporter\.service", line)
        and not re.match(f"path {GATEWAY_STATE}(/|$)", line)
    ]
    assert lab.ssh("edge", "systemctl is-active nginx prometheus-node-exporter", check=False) == (
        "inactive\ninactive"
    )
    assert lab.ssh("edge", "sysctl -n net.ipv4.tcp_retries2") == "15"
    assert lab.ssh("edge", "ls /var/log/llm-fleet/gateway.log"), "a log is data"
    assert lab.ssh("edge", f"ls -d {GATEWAY_STATE}"), "what keys have used is data"
    assert lab.deploy(inventory=INVENTORY, **roles) == {}
    assert lab.failing(inventory=INVENTORY, **roles) == {}


def test_a_removal_that_is_killed_is_finished_by_the_next(
    lab: LabUnderTest, bare: dict[str, set[str]]
) -> None:
    words = ("gpu1", "edge", "--yes", "--models", "--data")
    roles = {"gpu1": "gpu", "edge": "gpu"}
    for attempt in range(1, 5):
        with process(lab, roles, *words) as run:
            # Seen from outside: so many more of its paths are gone.
            many = len(listing(lab, "gpu1"))
            deadline = time.monotonic() + 60
            while len(listing(lab, "gpu1")) > many - attempt and time.monotonic() < deadline:
                if run.poll() is not None:
                    break
            run.kill()
    hosts = remove(lab, *words, roles=roles)
    for name, said in hosts.items():
        assert said["goes"] == []
        assert left(lab, name, bare, said["stays"]) == ""
    assert lab.ssh("edge", "ls -A /var/log/llm-fleet /var/lib/ollama", check=False) == ""
