"""Most settings changed: one Debian 12 host that is GPU host and gateway, models elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.conftest import LabUnderTest, published_sha256

_INVENTORY = Path("tests/lab/alternative.py")


@pytest.fixture(scope="module")
def environment(single_host_lab: LabUnderTest) -> dict[str, str]:
    """What the inventory reads, for a host with a second file system."""
    single_host_lab.ssh(
        "gpu1", "mkdir -p /srv/weights && mount -t tmpfs -o size=2G,mode=755 t /srv/weights"
    )
    return {"OLLAMA_SHA256": published_sha256(single_host_lab, "0.32.8")}


def test_deploys_once_and_complies(
    single_host_lab: LabUnderTest, environment: dict[str, str]
) -> None:
    lab = single_host_lab
    assert lab.deploy(inventory=_INVENTORY, **environment)
    assert lab.failing(inventory=_INVENTORY, **environment) == {}
    assert lab.deploy(inventory=_INVENTORY, **environment) == {}
    assert "Debian GNU/Linux 12" in lab.ssh("gpu1", "cat /etc/os-release")
    assert lab.ssh("gpu1", "findmnt -n -o TARGET -T /srv/weights/ollama/blobs") == "/srv/weights"


def test_without_a_firewall_of_ours(
    single_host_lab: LabUnderTest, environment: dict[str, str]
) -> None:
    """Switched off, nothing of the firewall is left, and nobody else's rules were touched."""
    lab = single_host_lab
    lab.ssh("gpu1", "nft add table inet somebody_else")
    data = ["--data", "firewall_backend=none"]
    assert lab.deploy(*data, inventory=_INVENTORY, **environment)
    # The gateway's limit of connections is no part of the firewall.
    others = {"table inet somebody_else", "table inet llm_fleet_gateway"}
    assert set(lab.ssh("gpu1", "nft list tables").splitlines()) == others
    assert lab.deploy(*data, inventory=_INVENTORY, **environment) == {}
    assert lab.deploy(inventory=_INVENTORY, **environment)
    assert set(lab.ssh("gpu1", "nft list tables").splitlines()) == {
        *others,
        "table inet llm_fleet",
    }
