"""A lab of its own for the tests, that is gone afterwards whatever happens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

from lab import hosts
from lab.network import UPSTREAM
from lab.state import LOCKS, STATE, default_id, find, read_json

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = ROOT / ".venv" / "bin"
LAB_INVENTORY = Path("inventory/lab.py")

Result = subprocess.CompletedProcess[str]

# What make has Python leave out, for a checkout without traces: here the same files are compiled
# some hundred times.
COMPILED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(ROOT / ".venv" / "pycache")}

# With several workers the longest files begin first, or the last of them would run alone.
LONGEST_FIRST = (
    "test_faults",
    "test_dify",
    "test_driver",
    "test_gates",
    "test_instances",
    "test_gateway",
    "test_models",
    "test_roll",
    "test_mixed",
    "test_run",
    "test_deploy",
    "test_dify_release",
    "test_vllm",
    "test_clients",
    "test_docker_instances",
    "test_docker",
    "test_dify_webui",
    "test_firewall",
    "test_dify_gateway",
    "test_driver_build",
    "upstream",
    "test_userland",
    "test_alternative",
)


class FileByFile(LoadScopeScheduling):
    """Workers take whole files: its tests share a lab, and go on from each other's state."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(Path(nodeid.partition("::")[0]))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> FileByFile:
    """Schedule so whatever --dist says, in the order of the collection."""
    config.option.loadscopereorder = False
    return FileByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: _rank(item.path))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Take down what a run that was killed left."""
    _sweep(session)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take down what a worker left that was killed, as by an interrupt; all are gone by now."""
    _sweep(session)


def _sweep(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput") or os.geteuid() != 0:
        return
    for lab_id in read_json(STATE / "labs.json"):
        if lab_id.startswith(f"{default_id()}-"):
            # Somebody else may be running tests of this checkout: that lab is owned.
            with contextlib.suppress(BlockingIOError), owned(lab_id, fcntl.LOCK_NB):
                LabUnderTest(lab_id).command("down")


@contextlib.contextmanager
def owned(lab_id: str, how: int = 0) -> Iterator[None]:
    """Be the one run of the tests that has this lab; the kernel lets go of it when we die."""
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / f"tests-{lab_id}").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | how)
        yield


def _group(path: Path) -> str:
    # What stands for the upstream has servers of its own, which its files share.
    return "upstream" if path.parent.name == "upstream" else path.stem


def _rank(path: Path) -> int:
    group = _group(path)
    return LONGEST_FIRST.index(group) if group in LONGEST_FIRST else len(LONGEST_FIRST)


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
        # As `lab ssh` does it, without starting Python for each of some thousand logins.
        lab = find(self.id)
        assert lab, f"there is no lab {self.id}"
        return _run([*hosts.ssh(lab, host), command], {}, check=check).stdout.strip()

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

    def fleet(self, *args: Any, check: bool = True, **environment: str) -> Result:
        """`fleet ARGS`."""
        environment = {"LLM_FLEET_LAB_ID": self.id, **environment}
        return _run([BIN / "fleet", *args], environment, check=check)

    def failing(self, inventory: Path = LAB_INVENTORY, **environment: str) -> dict[str, list[str]]:
        """Run the compliance checks: failing claim to the hosts that it fails on."""
        path = ROOT / ".lab" / self.id / "compliance.json"
        command = [
            BIN / "pytest", "tests/compliance", "--inventory", inventory, "--json", path,
            "-q", "-p", "no:cacheprovider",
        ]  # fmt: skip
        path.unlink(missing_ok=True)
        result = _run(command, {"LLM_FLEET_LAB_ID": self.id, **environment}, check=False)
        print(result.stdout)  # noqa: T201 - pytest shows it when the test fails
        assert path.exists(), result.stderr
        checks = json.loads(path.read_text())["checks"]
        fared = {
            outcome: {
                check["claim"]: sorted({r["host"] for r in found})
                for check in checks
                if (found := [r for r in check["results"] if r["outcome"] == outcome])
            }
            for outcome in ("held", "failed", "unchecked")
        }
        # A run in which nothing was checked proves nothing.
        assert fared["held"], result.stdout
        assert fared["failed"] or not fared["unchecked"], result.stdout
        return fared["failed"]


def published_sha256(lab: LabUnderTest, version: str) -> str:
    """The checksum of a release as its publisher states it."""
    url = f"{lab.state['upstream']['url']}/ollama/ollama/releases/download/v{version}"
    # Only the hosts know its name; a bare one has no program to ask it with.
    own = find(lab.id)
    assert own, f"there is no lab {lab.id}"
    here = url.replace("upstream.lab", own.address(UPSTREAM))
    with urllib.request.urlopen(f"{here}/sha256sum.txt") as answer:
        sums = answer.read().decode()
    return next(
        line.split()[0]
        for line in sums.splitlines()
        if line.endswith("/ollama-linux-amd64.tar.zst")
    )


def _run(command: list[Any], environment: dict[str, str], *, check: bool) -> Result:
    result = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | COMPILED | environment,
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
    with owned(lab.id):
        lab.command("down")
        try:
            lab.command("up", *args)
            yield lab
        finally:
            lab.command("down")


@pytest.fixture(scope="module")
def bare_lab(request: pytest.FixtureRequest) -> Iterator[LabUnderTest]:
    """Three bare hosts, for the tests of one file."""
    yield from _lab(_purpose(request))


@pytest.fixture(scope="module")
def gateway_lab() -> Iterator[LabUnderTest]:
    """Three bare GPU hosts and a gateway."""
    yield from _lab("gateway", "--hosts", "4")


@pytest.fixture(scope="module")
def single_host_lab() -> Iterator[LabUnderTest]:
    """One bare Debian 12 host that is both GPU host and gateway."""
    yield from _lab("single", "--hosts", "1", "--debian-12", "gpu1")


@pytest.fixture(scope="module")
def containers_lab() -> Iterator[LabUnderTest]:
    """One bare Debian 13 host, for containers."""
    yield from _lab("containers", "--hosts", "1")


def _purpose(request: pytest.FixtureRequest) -> str:
    """What the lab of a file is for: files that are run side by side have one each."""
    return str(request.module.__name__).rpartition("test_")[2]
