"""What an operator looks at: bare hosts before a deploy, and a fleet that runs, on real hosts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import BIN, ROOT, LabUnderTest, Result

INVENTORY = Path("tests/lab/inventories/dead.py")
ALIVE = ("gpu1", "gpu2", "edge")
# What a login itself writes, and services that run anyway.
_NOISE = "/proc /sys /run /dev /tmp /var/log /var/lib/systemd /var/lib/private /root/.cache"


class Fleet:
    """The lab, its three bare hosts, and the commands of an operator."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab

    def __call__(self, *args: Any, **environment: str) -> Result:
        return subprocess.run(
            [str(part) for part in (BIN / "fleet", *args)],
            cwd=ROOT,
            env={"LLM_FLEET_LAB_ID": self.lab.id, "PATH": "/usr/bin:/bin", **environment},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def told(self, command: str, *hosts: str) -> tuple[int, dict[str, Any]]:
        """The status of `fleet COMMAND --json`, and each host's part of what it printed."""
        result = self(command, INVENTORY, *hosts, "--json")
        assert result.stdout, result.stderr
        found = json.loads(result.stdout)
        assert found["schema"] == f"fleet-{command}/1"
        return result.returncode, {host["name"]: host for host in found["hosts"]}

    @contextmanager
    def without(self, host: str, unit: str) -> Iterator[None]:
        """While `unit` of `host` is stopped."""
        self.lab.ssh(host, f"systemctl stop {unit}")
        yield
        self.lab.ssh(host, f"systemctl start {unit}")


@pytest.fixture(scope="module")
def bare(bare_lab: LabUnderTest) -> Fleet:
    """Nothing of ours was ever on the hosts."""
    return Fleet(bare_lab)


@pytest.fixture(scope="module")
def fleet(bare: Fleet) -> Fleet:
    """Deployed, without the host that is dead."""
    bare.lab.deploy("--limit", "gpu1", "--limit", "gpu2", "--limit", "edge", inventory=INVENTORY)
    return bare


class TestBareHosts:
    def test_doctor_finds_nothing_and_leaves_nothing(self, bare: Fleet) -> None:
        for host in ALIVE:
            bare.lab.ssh(host, "touch /run/before; sleep 0.1")
        status, hosts = bare.told("doctor", *ALIVE)
        bad = [
            item for host in hosts.values() for item in host["checks"] if item["verdict"] == "fail"
        ]
        assert bad == []
        assert status == 0
        assert {item["check"] for item in hosts["edge"]["checks"]} >= {
            "login", "system", "clock", "ports", "other filters", "nginx", "keys",
        }  # fmt: skip
        prune = " -o ".join(f"-path {path}" for path in _NOISE.split())
        for host in ALIVE:
            new = bare.lab.ssh(
                host, rf"find / \( {prune} \) -prune -o -type f -newer /run/before -print"
            )
            assert new == "", host

    def test_doctor_says_what_the_deploy_would_refuse(self, bare: Fleet) -> None:
        bare.lab.ssh(
            "gpu1", "systemd-run --quiet --unit other systemd-socket-activate -l 0.0.0.0:11434 cat"
        )
        bare.lab.ssh("gpu1", "until ss -Hltn | grep -q 11434; do sleep 0.1; done")
        try:
            result = bare("doctor", INVENTORY, "gpu1", "gpu2")
        finally:
            bare.lab.ssh("gpu1", "systemctl stop other")
        assert result.returncode == 1
        assert max(map(len, result.stdout.splitlines())) <= 100
        [line] = [line for line in result.stdout.splitlines() if line.startswith("  fail ")]
        assert "ports: ollama_port = 11434" in line
        assert "other.service" in result.stdout

    def test_dead_host_is_one_line(self, bare: Fleet) -> None:
        status, hosts = bare.told("doctor", "gpu1", "dead1")
        assert status == 1
        first, second = hosts["dead1"]["checks"]
        assert (first["check"], first["verdict"], second["verdict"]) == (
            "login", "fail", "not checked",
        )  # fmt: skip
        assert bare("doctor", INVENTORY, "dead1").returncode == 2

    def test_upstream_is_asked_for_the_pinned_checksum(self, bare: Fleet) -> None:
        """... by a host that has curl, and of one without, it is said that it was not."""
        bare.lab.ssh("gpu1", "! command -v curl || mv $(command -v curl) /usr/bin/curl.away")
        checks = bare.told("doctor", "gpu1")[1]["gpu1"]["checks"]
        [line] = [item for item in checks if item["check"].startswith("Ollama ")]
        assert (line["verdict"], "no curl yet" in line["text"]) == ("ok", True), line
        bare.lab.ssh("gpu1", "! [ -e /usr/bin/curl.away ] || mv /usr/bin/curl.away /usr/bin/curl")


class TestDeployed:
    def test_all_is_well(self, fleet: Fleet) -> None:
        status, hosts = fleet.told("status", *ALIVE)
        assert [host["findings"] for host in hosts.values()] == [[], [], []]
        assert status == 0
        facts = hosts["gpu1"]["facts"]
        assert facts["models"]["models"]["gpt-oss:20b"]["phase"] == "ready"
        assert facts["ollama"]["servers"][""]["version"]
        assert facts["gateway"] == {"in_flight": {"edge": 0}, "drained_by": {"edge": False}}
        assert hosts["edge"]["facts"]["gateway"]["certificate_ends"]
        assert hosts["edge"]["facts"]["platform"]["deployed"]["who"]
        [line] = [
            item
            for item in fleet.told("doctor", "gpu1")[1]["gpu1"]["checks"]
            if item["check"].startswith("Ollama ")
        ]
        assert line["text"].endswith("states the pinned checksum"), line

    def test_dead_host_is_a_row_and_delays_nobody(self, fleet: Fleet) -> None:
        began = time.monotonic()
        result = fleet("status", INVENTORY)
        assert time.monotonic() - began < 30  # this machine may be busy: see the page
        assert result.returncode == 1
        [row] = [line for line in result.stdout.splitlines() if line.startswith("dead1 ")]
        assert "no answer" in row
        assert re.search(r"(?m)^gpu1 +ok ", result.stdout), result.stdout

    def test_what_is_down_is_a_finding(self, fleet: Fleet) -> None:
        with fleet.without("gpu1", "ollama"):
            status, hosts = fleet.told("status", "gpu1", "gpu2")
        assert (status, hosts["gpu2"]["findings"]) == (1, [])
        assert any("ollama.service does not answer" in text for text in hosts["gpu1"]["findings"])
        with fleet.without("edge", "nginx"):
            status, hosts = fleet.told("status", "edge")
        assert any("nginx does not answer" in text for text in hosts["edge"]["findings"])
        assert any("gateway_port = 8434" in text for text in hosts["edge"]["findings"])

    def test_chat_says_what_was_in_the_way(self, fleet: Fleet) -> None:
        question = ("chat", INVENTORY, "What is the capital of France?")
        with fleet.without("edge", "nginx"):
            said = fleet(*question)
        assert (said.returncode, "refuses the connection" in said.stderr) == (2, True), said.stderr
        with fleet.without("gpu1", "ollama"), fleet.without("gpu2", "ollama"):
            said = fleet(*question)
        assert "no GPU host that is to have gpt-oss:20b takes" in said.stderr, said.stderr
        proxy = fleet(*question, HTTPS_PROXY="http://127.0.0.1:9", NO_PROXY="x")
        # A private address is asked directly, whatever the environment says.
        assert proxy.returncode == 0, proxy.stderr

    def test_what_is_handed_out_works(self, fleet: Fleet, tmp_path: Path) -> None:
        """Each program of it, as its owner runs it: in a directory with the certificate."""
        result = fleet("key", "handout", INVENTORY, "plain", "--json")
        found = json.loads(result.stdout)
        (tmp_path / "fleet-ca.pem").write_text(found["authority"])
        programs = {
            "curl": ["bash", "-ec", found["snippets"]["curl"]],
            "python_openai": [sys.executable, "-c", found["snippets"]["python_openai"]],
            "python_ollama": [sys.executable, "-c", found["snippets"]["python_ollama"]],
        }
        for name, command in programs.items():
            ran = subprocess.run(
                command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
                capture_output=True, text=True, check=False, timeout=120,
            )  # fmt: skip
            assert ran.returncode == 0, f"{name}: {ran.stderr}"
            assert ran.stdout.strip(), name
            assert "error" not in ran.stdout, ran.stdout
