"""A host loses what it is no more, and all of it when it is removed; what stays is what was said."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import BIN, ROOT, LabUnderTest

INVENTORY = Path("tests/lab/inventories/roles.py")
FULL = {"gpu1": "gpu", "edge": "gpu gateway"}
# Everything that no package has brought; what packages make by themselves is told by a program of
# their own, or lies where only they write.
LISTING = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/tmp \
    -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /var/log/journal \
    -o -path /usr/share -o -path /usr/lib -o -path /root -o -path /var/log/apt \) -prune \
    -o -print | LC_ALL=C sort >/tmp/paths
cat /var/lib/dpkg/info/*.list | LC_ALL=C sort -u | LC_ALL=C comm -23 /tmp/paths - | sed 's/^/path /'
nft list ruleset 2>/dev/null | sed 's/^/nft /'
cut -d: -f1,6 /etc/passwd | sed 's/^/user /'
cut -d: -f1 /etc/group | sed 's/^/group /'
systemctl list-unit-files --state=enabled --no-legend | awk '{ print "enabled " $1 }'
systemctl list-units --all --plain --no-legend 'llm-fleet*' 'ollama*' | sed 's/^/unit /'
apt-mark showhold | sed 's/^/hold /'
sysctl net.ipv4.tcp_retries2 net.ipv4.tcp_keepalive_time | sed 's/^/kernel /'
"""


def listing(lab: LabUnderTest, host: str) -> set[str]:
    return set(lab.ssh(host, LISTING).splitlines())


def environment(lab: LabUnderTest, roles: dict[str, str]) -> dict[str, str]:
    return {"LLM_FLEET_LAB_ID": lab.id, "ROLES": json.dumps(roles)}


def remove(
    lab: LabUnderTest, *words: str, roles: dict[str, str] = FULL, status: int = 0
) -> dict[str, Any]:
    """`fleet remove --json`, by host."""
    import os

    result = subprocess.run(
        [BIN / "fleet", "remove", INVENTORY, *words, "--json"],
        cwd=ROOT,
        env=os.environ | environment(lab, roles),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    print(result.stdout, result.stderr)
    assert result.returncode == status, result.stderr
    if status == 2:
        return {"error": result.stderr}
    hosts: dict[str, Any] = json.loads(result.stdout)["hosts"]
    return hosts


@pytest.fixture(scope="module")
def bare(bare_lab: LabUnderTest) -> dict[str, set[str]]:
    """What the hosts have before any deploy."""
    return {name: listing(bare_lab, name) for name in FULL}


@pytest.fixture(scope="module")
def lab(bare: dict[str, set[str]], bare_lab: LabUnderTest) -> LabUnderTest:
    bare_lab.deploy(inventory=INVENTORY, **environment(bare_lab, FULL))
    return bare_lab


def test_x(lab: LabUnderTest, bare: dict[str, set[str]]) -> None:
    remove(lab, "gpu1", status=2)
    remove(lab, "gpu1", "--yes")
    print("\n".join(sorted(listing(lab, "gpu1") - bare["gpu1"])))
    print("GONE", "\n".join(sorted(bare["gpu1"] - listing(lab, "gpu1"))))
    remove(lab, "gpu1", "--yes", "--models")
    print("\n".join(sorted(listing(lab, "gpu1") - bare["gpu1"])))
    print(lab.deploy(inventory=INVENTORY, **environment(lab, {"gpu1": "gpu", "edge": "gpu"})))
    print(lab.deploy(inventory=INVENTORY, **environment(lab, {"gpu1": "gpu", "edge": "gpu"})))
    print("\n".join(sorted(listing(lab, "edge") - bare["edge"])))
    remove(lab, "gpu1", "edge", "--yes", "--models", "--data", roles={"gpu1": "gpu", "edge": "gpu"})
    print("\n".join(sorted(listing(lab, "edge") - bare["edge"])))
    assert 0
