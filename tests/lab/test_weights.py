"""Weights on a real host: killed on their way, whole in the end, damaged, mended, taken back."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from lab import network, processes
from lab.state import find
from tests.lab.conftest import ROOT, LabUnderTest, Result, _lab

pytestmark = [
    pytest.mark.slow,
    # The hub outlives what started it, as all of a lab does.
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

HOST, REPOSITORY = "gpu1", "openai/toy"
INVENTORY = Path("tests/lab/gpu.py")
HUB, STORAGE = 8081, 8082
MB = 1_000_000
SIZE = 40 * MB
UNIT = "llm-fleet-weights.service"
DIR = "/var/lib/llm-fleet-weights"


class Site:
    """One host, and a hub beside it that has one repository."""

    def __init__(self, lab: LabUnderTest, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.address = lab.state["upstream"]["address"]
        self.url = f"http://{self.address}:{HUB}"
        self._start_hub()
        lock = self.folder / "toy.lock"
        lab.fleet("weights", "lock", REPOSITORY, "--endpoint", self.url, "-o", lock)
        self.locked = json.loads(lock.read_text())
        self.settings: dict[str, Any] = {
            "ollama_models": ["gpt-oss:20b"],
            "weights_endpoint": f"http://upstream.lab:{HUB}",
            "weights_disk_reserve": 0.1,
            "weights_retry_delay": "1s",
            "weights": [
                {
                    "name": "toy",
                    "repository": REPOSITORY,
                    "revision": self.locked["revision"],
                    "lock": str(lock),
                }
            ],
        }

    def _start_hub(self) -> None:
        files = self.folder / "repositories" / REPOSITORY / "original"
        files.mkdir(parents=True)
        (files / "model.safetensors").write_bytes(random.Random(1).randbytes(SIZE))  # noqa: S311
        (files.parent / "config.json").write_text("{}\n")
        own = find(self.lab.id)
        assert own
        words = ["--listen", f"{self.address}:{HUB}", "--storage", f"{self.address}:{STORAGE}",
                 "--folder", str(self.folder / "repositories")]  # fmt: skip
        serve = ["env", "-C", str(ROOT), sys.executable, "-m", "lab.upstream.hub", *words]
        self.log = self.folder / "hub.log"
        processes.start(own, "hub", [*network.inside(own), *serve], log=self.log)
        wait_until(lambda: self.log.exists() and REPOSITORY in self.log.read_text())

    @property
    def large(self) -> dict[str, Any]:
        """The large file, as its lock has it."""
        found: dict[str, Any] = max(self.locked["files"], key=lambda file: int(file["size"]))
        return found

    @property
    def path(self) -> str:
        """The large file on the host."""
        return f"{DIR}/toy/{self.locked['revision']}/{self.large['path']}"

    @property
    def incomplete(self) -> str:
        return f"{DIR}/toy/{self.locked['revision']}.part/incomplete/{self.large['sha256']}"

    def ssh(self, command: str, *, check: bool = True) -> str:
        return self.lab.ssh(HOST, command, check=check)

    def break_link(self, **fault: Any) -> None:
        """Have the storage misbehave, only in this way; in none without any."""
        faults = [{"path": f"/{self.large['sha256']}", **fault}] if fault else []
        requests.put(f"{self.url}/_lab/faults", json=faults, timeout=10).raise_for_status()

    def asked(self) -> list[int]:
        """From which byte on the large file was asked for, in order."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [
            int(words[4].removeprefix("bytes=").rstrip("-"))
            for words in lines
            if words[:2] == ["GET", f"/{self.large['sha256']}"]
        ]

    def deploy(self, **changes: Any) -> dict[str, list[str]]:
        return self.lab.deploy(inventory=INVENTORY, **self._given(changes))

    def fleet(self, *words: Any, check: bool = True) -> Result:
        return self.lab.fleet(*words, check=check, **self._given({}))

    def verify(self) -> Result:
        return self.fleet("verify", INVENTORY, "--capability", "weights", check=False)

    def _given(self, changes: dict[str, Any]) -> dict[str, str]:
        return {"LAB_SETTINGS": json.dumps({**self.settings, **changes})}


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for lab in _lab("weights", "--hosts", "1"):
        yield Site(lab, tmp_path_factory.mktemp("weights"))


def test_killed_on_its_way_goes_on_and_a_second_deploy_changes_nothing(site: Site) -> None:
    """A deploy that does not wait leaves the host to it, and the next one attaches."""
    site.break_link(rate=MB, rate_from=4 * MB)
    site.deploy(weights_wait=False)
    wait_until(
        lambda: int(site.ssh(f"stat -c %s {site.incomplete} 2>/dev/null || echo 0")) > 6 * MB
    )
    assert "weights 0/1" in site.fleet("status", INVENTORY, check=False).stdout
    site.ssh(f"systemctl kill -s KILL {UNIT}")
    site.break_link()
    site.deploy()
    assert site.ssh(f"sha256sum {site.path}").split()[0] == site.large["sha256"]
    assert site.asked()[0] == 0
    assert min(site.asked()[1:]) > 6 * MB
    assert site.deploy() == {}
    assert "weights 1/1 ready" in site.fleet("status", INVENTORY, check=False).stdout
    done = site.verify()
    assert done.returncode == 0, done.stdout


def test_changed_byte_is_found_and_fetched_again(site: Site) -> None:
    site.deploy()
    site.ssh(f"printf x | dd of={site.path} bs=1 seek=1000 conv=notrunc status=none")
    done = site.verify()
    assert done.returncode == 1, done.stdout
    assert "has the SHA-256" in done.stdout
    site.deploy()
    done = site.verify()
    assert done.returncode == 0, done.stdout
    assert site.ssh(f"ls {DIR}/toy") == site.locked["revision"]


def test_is_taken_back(site: Site) -> None:
    """The loader goes with the declaration; what it fetched goes when somebody says so."""
    site.deploy()
    site.deploy(weights=[])
    assert site.ssh(f"systemctl show -p LoadState --value {UNIT}") == "not-found"
    assert (
        site.ssh("ls /etc/llm-fleet/weights* /usr/local/lib/llm-fleet/weights*", check=False) == ""
    )
    assert site.ssh(f"sha256sum {site.path}").split()[0] == site.large["sha256"]
    site.fleet("remove", INVENTORY, HOST, "--yes", "--models")
    assert site.ssh(f"ls -d {DIR}; getent passwd llm-fleet-weights", check=False) == ""
