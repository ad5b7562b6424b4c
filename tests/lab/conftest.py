"""A lab of its own for the tests, that is gone afterwards whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.state import default_id

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = ROOT / ".venv" / "bin"
LAB_INVENTORY = Path("inventory/lab.py")

Result = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class LabUnderTest:
    """A running lab, and the project's own commands used on it as an operator would."""

    id: str

    @property
    def state(self) -> dict[str, Any]:
        """What `lab up` wrote down."""
        state: dict[str, Any] = json.loads((ROOT / ".lab" / self.id / "lab.json").read_text())
        return state

    def command(self, *args: str, **environment: str) -> Result:
        """`lab ARGS`, which must succeed."""
        return _run([BIN / "lab", *args], {"LLM_FLEET_LAB_ID": self.id, **environment}, check=True)

    def ssh(self, host: str, command: str, *, check: bool = True) -> str:
        """Standard output of a shell `command` run by root on `host`."""
        result = _run(
            [BIN / "lab", "ssh", host, command], {"LLM_FLEET_LAB_ID": self.id}, check=check
        )
        return result.stdout.strip()

    def pyinfra(
        self, *args: str, inventory: Path = LAB_INVENTORY, check: bool = True, **environment: str
    ) -> Result:
        """`pyinfra INVENTORY deploy.py ARGS`."""
        command = [BIN / "pyinfra", inventory, "deploy.py", *args]
        environment = {"LLM_FLEET_LAB_ID": self.id, "PYINFRA_PROGRESS": "off", **environment}
        return _run(command, environment, check=check)

    def deploy(
        self, *args: str, inventory: Path = LAB_INVENTORY, **environment: str
    ) -> dict[str, list[str]]:
        """Converge, which must succeed; each operation that changed something, and where."""
        result = self.pyinfra("-y", "--json", *args, inventory=inventory, **environment)
        operations = json.loads(result.stdout)["results"]["operations"]
        return {item["name"]: item["success"] for item in operations if item["success"]}

    def failing(self, inventory: Path = LAB_INVENTORY, **environment: str) -> dict[str, list[str]]:
        """Run the compliance checks: failing claim to the hosts that it fails on."""
        path = ROOT / ".lab" / self.id / "compliance.json"
        command = [
            BIN / "pytest", "tests/compliance", "--inventory", inventory, "--json", path,
            "-q", "-n", "3", "--dist", "loadgroup", "-p", "no:cacheprovider",
        ]  # fmt: skip
        path.unlink(missing_ok=True)
        result = _run(command, {"LLM_FLEET_LAB_ID": self.id, **environment}, check=False)
        print(result.stdout)  # noqa: T201 - pytest shows it when the test fails
        assert path.exists(), result.stderr
        rows = json.loads(path.read_text())
        # A run in which nothing was checked proves nothing.
        assert sum(len(row["passed"]) for row in rows) > 0, result.stdout
        return {row["claim"]: sorted(set(row["failed"])) for row in rows if row["failed"]}


def published_sha256(lab: LabUnderTest, version: str) -> str:
    """The checksum of a release as its publisher states it."""
    url = f"{lab.state['upstream']['url']}/ollama/ollama/releases/download/v{version}"
    sums = lab.ssh("gpu1", f"curl -fsS {url}/sha256sum.txt")
    return next(
        line.split()[0]
        for line in sums.splitlines()
        if line.endswith("/ollama-linux-amd64.tar.zst")
    )


def _run(command: list[Any], environment: dict[str, str], *, check: bool) -> Result:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if check and result.returncode != 0:
        pytest.fail(
            f"{' '.join(str(part) for part in command)}: exit {result.returncode}\n"
            f"{result.stdout[-6000:]}\n{result.stderr[-6000:]}",
            pytrace=False,
        )
    return result


def _lab(purpose: str, *args: str) -> Iterator[LabUnderTest]:
    # Ids count for the whole machine: another checkout may run its tests at the same time.
    lab = LabUnderTest(f"{default_id()}-{purpose}")
    lab.command("down")
    try:
        lab.command("up", *args)
        yield lab
    finally:
        lab.command("down")


@pytest.fixture(scope="module")
def bare_lab() -> Iterator[LabUnderTest]:
    """Three bare hosts, for the tests of one file."""
    yield from _lab("test")


@pytest.fixture(scope="module")
def door_lab() -> Iterator[LabUnderTest]:
    """Three bare GPU hosts and a gateway."""
    yield from _lab("door", "--hosts", "4")


@pytest.fixture(scope="module")
def single_host_lab() -> Iterator[LabUnderTest]:
    """One bare Debian 12 host that is both GPU host and gateway."""
    yield from _lab("single", "--hosts", "1", "--debian-12", "gpu1")


@pytest.fixture(scope="module")
def containers_lab() -> Iterator[LabUnderTest]:
    """One bare Debian 13 host, for containers."""
    yield from _lab("containers", "--hosts", "1")
