"""A host with a Docker, on which Dify's program runs; how a run is killed, and how one fails.

The program and its archives are real; Docker is `docker.py` here, whose database is a text.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dify_health
import dify_stack
from dify_console import Dify
from dify_knowledge import Knowledge
from dify_upgrades import Upgrades
from tests.unit.dify import docker

_RUN = subprocess.run


OLD, NEW, NEWER = "1.16.1", "1.17.1", "1.17.2"


class Killed(BaseException):
    """What a reboot is to a program."""


class Host:
    """A host with a Docker, on which Dify's program runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "dify"
        for version in (OLD, NEW, NEWER):
            self.offer(version)
        self.docker: dict[str, Any] = {
            "containers": {},
            "images": [],
            "calls": [],
            "database": "",
            "migrating": 0,
            "proc": str(folder / "proc"),
            "unwell": [],
        }
        (folder / "values").write_text("SECRET_KEY=x\n")
        (folder / "secrets.json").write_text("{}")
        client = {"memory": str(folder / "memory.json"), "keys": str(folder / "app-keys.json"),
                  "url": "http://127.0.0.1:9", "apps": []}  # fmt: skip
        (folder / "client.json").write_text(json.dumps(client))

    def offer(self, version: str) -> None:
        """Have a release unpacked."""
        place = self.folder / "opt" / version / "docker"
        place.mkdir(parents=True, exist_ok=True)
        (place / "docker-compose.yaml").write_text("services: {}\n")
        (place / ".env.example").write_text("SECRET_KEY=\n")

    def run(self, words: Any, **more: Any) -> Any:
        """What `subprocess.run` does, with this host's Docker."""
        rest = list(words)[list(words).index("docker") + 1 :] if "docker" in words else None
        if rest is None:
            return _RUN(words, **more)
        out, err, stdin = io.StringIO(), io.StringIO(), more.get("stdin")
        text = stdin.read().decode() if stdin else ""
        with (
            contextlib.chdir(more.get("cwd") or "/"),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = docker.main(self.docker, rest, text)
        if not more.get("text"):
            more["stdout"].write(out.getvalue().encode())
            return subprocess.CompletedProcess(words, status, None, err.getvalue().encode())
        return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())

    def tell(self, **state: Any) -> None:
        """Have Docker know something else."""
        self.docker |= state

    def config(self, version: str) -> dict[str, Any]:
        """What the program is told."""
        network = {"bridge": "br-dify", "subnet": "10.9.0.0/24", "ip_range": "10.9.0.0/25",
                   "daemon": "10.9.0.250"}  # fmt: skip
        return {
            "version": version, "project": "dify", "pristine": str(self.folder / "opt"),
            "root": str(self.root), "values": str(self.folder / "values"),
            "secrets": str(self.folder / "secrets.json"),
            "client": str(self.folder / "client.json"),
            "restore": str(self.root / "restore.tar"), "images": {}, "publish": {},
            "network": network, "proxy": None, "ca": None, "start_timeout": 5,
            "backup": {"dir": str(self.folder / "backups"), "keep": 9, "due": 3600},
        }  # fmt: skip

    def stack(self, version: str) -> Any:
        """The program, with `version` declared."""
        return dify_stack.Stack(self.config(version))

    def converge(self, version: str) -> None:
        """A deploy of `version`."""
        self.stack(version).converge()

    def work(self, text: str) -> None:
        """Leave something in the database and among the files."""
        self.tell(database=f"{self.docker['database']} {text}")
        (self.root / "volumes" / "files").write_text(self.docker["database"])

    @property
    def running(self) -> set[str]:
        """Versions whose containers run, all of them."""
        containers = self.docker["containers"].values()
        assert {item["State"]["Status"] for item in containers} == {"running"}
        return {item["Config"]["Image"].partition(":")[2] for item in containers}

    @property
    def files(self) -> str:
        """What is in the volumes."""
        return (self.root / "volumes" / "files").read_text()

    def do(self, *words: str) -> int:
        """Run the program as systemd does."""
        path = self.folder / "config.json"
        path.write_text(json.dumps(self.config(OLD)))
        status: int = dify_stack.main([words[0], str(path), *words[1:]])
        return status


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host on which the old release runs, with work in it."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(Dify, "wait_ready", lambda _: "finished")
    for name in ("note", "prove"):
        monkeypatch.setattr(Knowledge, name, lambda _: None)
    host = Host(tmp_path)
    monkeypatch.setattr(dify_health, "PROC", tmp_path / "proc")
    monkeypatch.setattr(subprocess, "run", host.run)
    host.converge(OLD)
    host.work("work")
    return host


def killed_at(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, *, after: bool = False
) -> None:
    """Kill the next run when it comes to the function `name` of a class or a module, once."""
    original: Callable[..., Any] = getattr(owner, name)

    def kill(*words: Any, **more: Any) -> Any:
        monkeypatch.setattr(owner, name, original)
        if after:
            original(*words, **more)
        raise Killed

    monkeypatch.setattr(owner, name, kill)


def failing(
    monkeypatch: pytest.MonkeyPatch, host: Host, error: Exception, *, versions: set[str]
) -> None:
    """Have the proof of these versions fail."""

    def prove(_: Any) -> None:
        if host.running & versions:
            raise error

    monkeypatch.setattr(Upgrades, "_prove", prove)
