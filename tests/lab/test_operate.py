"""A fleet as its operator has it, by the commands of `fleet`: deployed, looked after, cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.lab.conftest import BIN, COMPILED, LAB_INVENTORY, ROOT, LabUnderTest, Result
from tests.lab.test_run import cut_off

OLLAMA = "/etc/systemd/system/ollama.service"
HOSTS = ["gpu1", "gpu2", "edge"]


def start(lab: LabUnderTest, *words: str) -> subprocess.Popen[str]:
    """`fleet WORDS`, as somebody runs it who has no terminal."""
    return subprocess.Popen(
        # A shell that starts tests in its background has them ignore Ctrl-C.
        ["env", "--default-signal=INT", BIN / "fleet", *words],
        cwd=ROOT,
        env=os.environ
        | COMPILED
        | {"LLM_FLEET_LAB_ID": lab.id, "XDG_STATE_HOME": str(ROOT / ".lab" / lab.id)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def fleet(lab: LabUnderTest, *words: str, status: int = 0) -> Result:
    """What `fleet WORDS` printed, which ends with `status`."""
    process = start(lab, *words)
    out, err = process.communicate(timeout=600)
    assert process.returncode == status, f"{out[-4000:]}\n{err[-4000:]}"
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def hosts(result: Result) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(result.stdout)["hosts"]
    return values


@pytest.fixture(scope="module")
def lab(bare_lab: LabUnderTest) -> LabUnderTest:
    """Three hosts, deployed by `fleet deploy`."""
    result = fleet(bare_lab, "deploy", str(LAB_INVENTORY), "--yes", "--json")
    for name, host in hosts(result).items():
        assert host["failed"] is None, name
        assert host["changed"], name
        assert host["seconds"] > 1, name
    assert sorted(hosts(result)) == sorted(HOSTS)
    assert "gpu1  changed  " in result.stderr
    return bare_lab


def test_a_second_deploy_changes_nothing_and_says_what_is_next(lab: LabUnderTest) -> None:
    result = fleet(lab, "deploy", str(LAB_INVENTORY), "--yes")
    address = lab.state["hosts"]["edge"]["address"]
    assert result.stdout.splitlines() == [
        "Nothing to change on gpu1, gpu2, edge.",
        f"gateway: http://{address}:8434",
        f"Next, prove it: fleet verify {LAB_INVENTORY}",
    ]
    assert result.stderr == ""


def test_drift_is_what_a_deploy_would_change(lab: LabUnderTest) -> None:
    """... by host and operation, and the deploy of these hosts alone puts it right."""
    clean = hosts(fleet(lab, "drift", str(LAB_INVENTORY), "--json"))
    assert all(host["would_change"] == [] for host in clean.values())
    before = lab.ssh("gpu1", f"cat {OLLAMA}")
    lab.ssh("gpu1", f"echo '# by hand' >> {OLLAMA}")
    lab.ssh("edge", "systemctl stop nginx")
    drifted = hosts(fleet(lab, "drift", str(LAB_INVENTORY), "--json", status=1))
    assert drifted["gpu2"]["would_change"] == []
    assert any(name.startswith("Ollama | ") for name in drifted["gpu1"]["would_change"])
    assert any(name.startswith("Gateway | ") for name in drifted["edge"]["would_change"])
    assert lab.ssh("gpu1", f"tail -1 {OLLAMA}") == "# by hand"
    told = fleet(lab, "deploy", str(LAB_INVENTORY), "gpu1", "edge", "--yes", "--json")
    assert {name for name, host in hosts(told).items() if host["changed"]} == {"gpu1", "edge"}
    assert lab.ssh("gpu1", f"cat {OLLAMA}") == before
    fleet(lab, "drift", str(LAB_INVENTORY))


def test_logs_are_read_and_followed(lab: LabUnderTest) -> None:
    said = fleet(lab, "logs", str(LAB_INVENTORY), "gpu1", "ollama", "-n", "5").stdout
    assert "ollama" in said
    lab.ssh("gpu1", f"curl -s http://{lab.state['hosts']['edge']['address']}:8434/v1/models")
    # nginx writes its log a second later.
    deadline = time.monotonic() + 60
    requests = ""
    while '"path":"/v1/models"' not in requests:
        assert time.monotonic() < deadline, requests
        gateway_logs = ("logs", str(LAB_INVENTORY), "edge", "gateway", "--since", "1h")
        requests = fleet(lab, *gateway_logs).stdout
    process = start(lab, "logs", str(LAB_INVENTORY), "gpu1", "ollama", "-n", "1", "--follow")
    try:
        assert process.stdout
        process.stdout.readline()
        lab.ssh("gpu1", "systemctl restart ollama")
        assert process.stdout.readline()
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    time.sleep(2)
    assert lab.ssh("gpu1", "pgrep -f '[j]ournalctl.*--follow'", check=False) == ""


def test_a_host_that_cannot_be_reached_is_named_with_its_reason(lab: LabUnderTest) -> None:
    """... and the others are deployed."""
    with cut_off(lab, "gpu2"):
        lab.ssh("gpu1", f"echo '# by hand' >> {OLLAMA}")
        unknown = fleet(lab, "drift", str(LAB_INVENTORY), "edge", "gpu2", status=2)
        result = fleet(lab, "deploy", str(LAB_INVENTORY), "--yes", status=1)
    assert "gpu2  cannot be deployed: " in unknown.stdout
    lines = result.stdout.splitlines()
    assert lines[0].startswith("gpu2  FAILED: Could not connect (")
    assert lines[1].startswith("gpu1  changed: ")
    assert "Nothing to change on edge." in lines


def test_an_interrupt_ends_all_of_it_at_once(lab: LabUnderTest) -> None:
    process = start(lab, "deploy", str(LAB_INVENTORY), "--yes")
    time.sleep(6)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "interrupted" in err
    assert time.monotonic() - began < 10
    # Whoever deploys next is not told that somebody is at work.
    fleet(lab, "deploy", str(LAB_INVENTORY), "--yes")
