"""A hub on this machine, and runs of the loader against it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import weights_loader
from fleet.declare.fleet import PRODUCT_ROOT
from fleet.kit.on_host.common import sha256
from lab.upstream.faults import Fault
from lab.upstream.hub import Hub, Repository

REPOSITORY = "openai/toy"
SMALL = b'{"model_type": "toy"}\n'
# Larger than what is on its way at a time.
LARGE = random.Random(1).randbytes(6_000_000)  # noqa: S311 - no secret
FILES = {"config.json": SMALL, "original/model.safetensors": LARGE, "empty/__init__.py": b""}
_PATH = os.pathsep.join(str(path) for path in sorted(PRODUCT_ROOT.glob("fleet/*/on_host")))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub with one repository."""
    (tmp_path / "hub").mkdir()
    server = Hub(tmp_path / "hub", ("127.0.0.1", 0), ("127.0.0.1", 0))
    server.publish(REPOSITORY, FILES)
    with server.serving():
        yield server


class Site:
    """Runs of the loader for what `hub` has, and the folder that they fill."""

    def __init__(self, hub: Hub, root: Path) -> None:
        self.hub, self.root = hub, root / "weights"
        self.root.mkdir()
        self.config_path = root / "weights.json"
        self.state_path = root / "run" / "state.json"
        self.changes: dict[str, Any] = {}
        self.limits: dict[str, float] = {
            "no_progress": 300, "slow_rate": 0, "slow_window": 1, "attempts": 3,
            "first_delay": 0, "longest_delay": 0, "disk_reserve": 0,
        }  # fmt: skip

    @property
    def repository(self) -> Repository:
        return self.hub.repositories[REPOSITORY]

    @property
    def folder(self) -> Path:
        return self.root / "toy" / self.repository.commit

    @property
    def part(self) -> Path:
        return Path(f"{self.folder}.part")

    @property
    def large(self) -> Path:
        return self.folder / "original/model.safetensors"

    @property
    def storage_path(self) -> str:
        """Where the large file is asked for in the end."""
        return f"/{self.repository.files['original/model.safetensors'].sha256}"

    def entry(self, **values: Any) -> dict[str, Any]:
        """What is declared of the repository."""
        files = [
            {"path": path, "size": item.size, "sha256": item.sha256}
            for path, item in sorted(self.repository.files.items())
        ]
        return {
            "name": "toy", "source": "huggingface", "endpoint": self.hub.url,
            "repository": REPOSITORY, "revision": self.repository.commit, "token": False,
            "files": files, **values,
        }  # fmt: skip

    def config(self, *entries: dict[str, Any]) -> dict[str, Any]:
        return {
            "dir": str(self.root), "state": str(self.state_path), "prune": False,
            "limits": self.limits, "weights": list(entries or [self.entry()]), **self.changes,
        }  # fmt: skip

    def run(self, *entries: dict[str, Any]) -> bool:
        return weights_loader.Loader(self.config(*entries)).run()

    def check(self, *entries: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = weights_loader.Loader(self.config(*entries)).check()
        return answer

    def command(self, *words: str) -> list[Any]:
        """The program itself, as systemd runs it."""
        self.config_path.write_text(json.dumps(self.config()))
        return [sys.executable, weights_loader.__file__, *words, self.config_path]

    @property
    def environment(self) -> dict[str, str]:
        """Where it finds its modules, which lie beside it on a host."""
        return {**os.environ, "PYTHONPATH": _PATH}

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start it."""
        return subprocess.Popen(
            self.command(*words), env={**self.environment, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def program(self, *words: str, **environment: str) -> tuple[int, str]:
        """Its exit status, and all that it says."""
        process = self.start(*words, **environment)
        said, complained = process.communicate(timeout=300)
        return process.returncode, said + complained

    @property
    def state(self) -> dict[str, Any]:
        models: dict[str, Any] = json.loads(self.state_path.read_text())["models"]
        return models

    def break_link(self, **fault: Any) -> None:
        """Have the storage of the large file misbehave."""
        self.hub.faults.list = [Fault(path=self.storage_path, **fault)]

    def served(self) -> int:
        """Bytes of the large file that went out so far."""
        return self.hub.faults.served[self.storage_path]

    def wait_for(self, size: int, process: subprocess.Popen[str]) -> None:
        """Go on once so many bytes of the large file have come."""
        incomplete = self.part / "incomplete" / self.storage_path[1:]
        deadline = time.monotonic() + 300
        while not incomplete.exists() or incomplete.stat().st_size < size:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def assert_whole(self, folder: Path | None = None) -> None:
        """The folder has the files of the repository, and the place nothing beside them."""
        folder = folder or self.folder
        found = {
            str(path.relative_to(folder)): sha256(path)
            for path in folder.rglob("*") if path.is_file()
        }  # fmt: skip
        assert found == {path: item.sha256 for path, item in self.repository.files.items()}
        assert not self.part.exists()


@pytest.fixture
def site(hub: Hub, tmp_path: Path) -> Site:
    return Site(hub, tmp_path)
