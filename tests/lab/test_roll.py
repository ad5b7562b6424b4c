"""Hosts are changed, upgraded and added while clients ask, and not one of these notices."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.upstream import release
from tests.lab.conftest import BIN, ROOT, LabUnderTest, Result, published_sha256
from tests.lab.load import Load, under_load

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/inventories/growing.py")
MODEL = "gpt-oss:20b"
TWO, THREE = "gpu1 gpu2", "gpu1 gpu2 gpu3"
_OLD, _NEW = release.VERSIONS
# Between the two: its trial answers, and what it is a trial of does not.
_BROKEN = "0.32.99"
_SERVED = "/etc/llm-fleet/gateway/served"
_KEEP_ALIVE = {"ollama_keep_alive": "7m"}


@pytest.fixture(scope="module")
def fleet(gateway_lab: LabUnderTest) -> LabUnderTest:
    """Two GPU hosts behind a gateway; a third is bare."""
    gateway_lab.deploy(inventory=INVENTORY, GPUS=TWO)
    assert gateway_lab.deploy(inventory=INVENTORY, GPUS=TWO) == {}
    assert served(gateway_lab) == ["gpu1", "gpu2"]
    return gateway_lab


@pytest.fixture(scope="module")
def load(fleet: LabUnderTest) -> Iterator[Load]:
    """Clients that ask through all the tests of this file."""
    address = fleet.state["hosts"]["edge"]["address"]
    key = run(fleet, "fleet", "key", "show", INVENTORY, "lab", GPUS=TWO).stdout.strip()
    with under_load(f"http://{address}:8434", key, MODEL) as load:
        yield load


@pytest.fixture(autouse=True)
def _nobody_noticed(load: Load) -> Iterator[None]:
    yield
    assert load.failures == [], load.asked


def run(lab: LabUnderTest, program: str, *words: object, **environment: str) -> Result:
    """One of the project's programs on the lab."""
    return subprocess.run(
        [str(word) for word in (BIN / program, *words)],
        cwd=ROOT,
        env={"LLM_FLEET_LAB_ID": lab.id, "PATH": "/usr/bin:/bin", **environment},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def served(lab: LabUnderTest) -> list[str]:
    """The servers that the gateway has for ready."""
    return [line for line in lab.ssh("edge", f"cat {_SERVED}").splitlines() if line[0] != "#"]


def started(lab: LabUnderTest) -> dict[str, int]:
    """GPU host to when its server started, in microseconds since boot of the one kernel."""
    show = "systemctl show --value -p ExecMainStartTimestampMonotonic ollama"
    return {host: int(lab.ssh(host, show)) for host in ("gpu1", "gpu2")}


def version(lab: LabUnderTest, host: str) -> str:
    """What the running server says that it is."""
    url = f"http://{lab.state['hosts'][host]['address']}:11434/api/version"
    return str(json.loads(lab.ssh(host, f"curl -fsS {url}"))["version"])


def test_a_changed_unit_is_restarted_host_by_host(fleet: LabUnderTest) -> None:
    before = started(fleet)
    changed = fleet.deploy(inventory=INVENTORY, GPUS=TWO, OLLAMA=json.dumps(_KEEP_ALIVE))
    assert any("Restart what runs" in name for name in changed), changed
    after = started(fleet)
    assert all(after[host] > before[host] for host in before)
    assert served(fleet) == ["gpu1", "gpu2"]
    assert fleet.deploy(inventory=INVENTORY, GPUS=TWO, OLLAMA=json.dumps(_KEEP_ALIVE)) == {}


def test_a_drained_host_is_restarted_and_stays_drained(fleet: LabUnderTest) -> None:
    for words in (("drain", "gpu2"), ("undrain", "gpu2")):
        done = run(fleet, "fleet", words[0], INVENTORY, words[1], GPUS=TWO)
        assert done.returncode == 0, done.stderr
        if words[0] == "drain":
            fleet.deploy("--limit", "gpu2", inventory=INVENTORY, GPUS=TWO)
            drained = fleet.ssh("edge", "cat /etc/llm-fleet/gateway/drained").splitlines()
            assert [line.split()[0] for line in drained[1:]] == ["gpu2"]
    fleet.deploy(inventory=INVENTORY, GPUS=TWO, OLLAMA=json.dumps(_KEEP_ALIVE))


def test_an_upgrade(fleet: LabUnderTest) -> None:
    upgraded = _release(fleet, _NEW)
    fleet.deploy(inventory=INVENTORY, GPUS=TWO, OLLAMA=upgraded)
    assert {version(fleet, host) for host in ("gpu1", "gpu2")} == {_NEW}
    assert fleet.deploy(inventory=INVENTORY, GPUS=TWO, OLLAMA=upgraded) == {}


def test_an_upgrade_that_does_not_answer_is_taken_back(fleet: LabUnderTest) -> None:
    """The first host serves as before, with the journal as evidence; the second is untouched."""
    broken = _lay_broken(fleet)
    before = started(fleet)
    done = fleet.pyinfra("-y", inventory=INVENTORY, check=False, GPUS=TWO, OLLAMA=broken)
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "this release is broken" in said
    assert f"ollama.service of Ollama {_NEW} was put back and serves as before" in said
    [first] = [host for host in before if f"{host} failed before its turn came" in said]
    [second] = set(before) - {first}
    assert {version(fleet, host) for host in before} == {_NEW}
    after = started(fleet)
    assert after[first] > before[first]
    assert after[second] == before[second]
    assert fleet.ssh(second, "readlink /opt/ollama/current") == f"/opt/ollama/{_NEW}"
    assert served(fleet) == ["gpu1", "gpu2"]
    fleet.deploy(inventory=INVENTORY, GPUS=TWO, OLLAMA=_release(fleet, _NEW))


def test_a_killed_roll_is_finished_by_the_next_deploy(fleet: LabUnderTest) -> None:
    """The host that was out gets requests again, before the one that served is restarted."""
    back = _release(fleet, _OLD)
    process = subprocess.Popen(
        [BIN / "pyinfra", INVENTORY, "deploy.py", "-y"],
        cwd=ROOT,
        env={"LLM_FLEET_LAB_ID": fleet.id, "PATH": "/usr/bin:/bin", "PYINFRA_PROGRESS": "off",
             "GPUS": TWO, "OLLAMA": back},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while len(served(fleet)) == 2:
            assert process.poll() is None, "the deploy took nobody out"
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    assert len(served(fleet)) == 1
    fleet.deploy(inventory=INVENTORY, GPUS=TWO, OLLAMA=back)
    assert served(fleet) == ["gpu1", "gpu2"]
    assert {version(fleet, host) for host in ("gpu1", "gpu2")} == {_OLD}


def test_a_host_is_added(fleet: LabUnderTest) -> None:
    """It gets requests when it is ready, and not while it pulls."""
    back = _release(fleet, _OLD)
    changed = fleet.deploy(inventory=INVENTORY, GPUS=THREE, OLLAMA=back)
    assert any("Let the host in" in name for name in changed), changed
    assert served(fleet) == ["gpu1", "gpu2", "gpu3"]
    address = fleet.state["hosts"]["gpu3"]["address"]
    log = "/var/log/llm-fleet/gateway.log"
    deadline = time.monotonic() + 60
    while fleet.ssh("edge", f"grep -c {address} {log}; true") == "0":
        assert time.monotonic() < deadline, "it gets no requests"
        time.sleep(1)
    assert fleet.deploy(inventory=INVENTORY, GPUS=THREE, OLLAMA=back) == {}


def test_there_were_enough_requests(load: Load) -> None:
    while load.asked < 900:
        time.sleep(1)
    long = [count for count in load.streams if count >= 20]
    assert len(long) >= 100, load.streams


def _release(lab: LabUnderTest, number: str) -> str:
    """What GPU hosts are declared with for a release, as JSON."""
    sha256 = published_sha256(lab, number)
    return json.dumps({**_KEEP_ALIVE, "ollama_version": number, "ollama_sha256": sha256})


def _lay_broken(lab: LabUnderTest) -> str:
    """Have a release on the hosts that runs as a trial, on a port of the kernel's choice, only.

    What GPU hosts are declared with for it, as JSON. It is there already, so it is not fetched.
    """
    sha256 = "ab" * 32
    script = f"""
        set -e
        rm -rf /opt/ollama/{_BROKEN}; cp -a /opt/ollama/{_NEW} /opt/ollama/{_BROKEN}
        cd /opt/ollama/{_BROKEN}; mv bin/ollama bin/real
        printf '%s\\n' '#!/bin/sh' \\
            'case "$OLLAMA_HOST" in *:0) exec "${{0%/*}}/real" "$@";; esac' \\
            'echo this release is broken >&2; exit 3' > bin/ollama
        chmod 755 bin/ollama; echo {sha256} > .sha256
    """
    for host in ("gpu1", "gpu2"):
        lab.ssh(host, script)
    return json.dumps({**_KEEP_ALIVE, "ollama_version": _BROKEN, "ollama_sha256": sha256})
