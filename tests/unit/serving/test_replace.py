"""What there is to come back on a host, and what is waited for. Real ones are in tests/lab."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyinfra.context import ctx_host

from fleet.declare.fleet import FleetHost
from fleet.kit.commands import Commands
from fleet.models.facts import ModelsCheck, ModelsState
from fleet.ollama.facts import OllamaReleases, OllamaServers, Release, Servers
from fleet.serving import replace as module
from fleet.serving.facts import ServersThere
from fleet.serving.ready import answers, models_of, servers_there
from fleet.serving.replace import keep, put_back, what_runs
from tests.fleets import EDGE, GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")

OLD = "ollama.service"
NEW = ("ollama@a.service", "ollama@b.service")


@pytest.fixture
def me() -> FleetHost:
    """A host that is declared to have two servers; the first has the port of the only one."""
    two = [{"name": "a", "port": 11434, "gpus": [0]}, {"name": "b", "port": 11435, "gpus": [1]}]
    gpu = {**GPU[1], "ollama_instances": two}
    return fleet_of({"gpu1": ("gpu", gpu), "edge": EDGE})["gpu1"]


class Host:
    """A host that has one server, ollama.service; `running` is what runs now."""

    def __init__(self) -> None:
        self.running: tuple[str, ...] = (OLD,)
        self.asked: list[dict[str, Any]] = []

    def get_fact(self, fact: type, **given: Any) -> Any:
        """What it tells."""
        self.asked.append(given)
        return {
            OllamaServers: Servers((), self.running),
            OllamaReleases: Release("0" * 64, "/opt/ollama/0.1.0"),
            ServersThere: (NEW[0],),
            ModelsState: ModelsCheck(True, ("m",)),
        }[fact]


@pytest.fixture
def host() -> Iterator[Host]:
    """The host that steps are at work on."""
    made = Host()
    with ctx_host.use(made):
        yield made


def lines(commands: Commands) -> list[str]:
    return [command.get_raw_value() for command in commands]


def test_servers_of_other_names_come_back(me: FleetHost, host: Host) -> None:
    before = what_runs(me)
    assert before.units == (OLD,)
    assert [item.unit for item in before.servers] == [NEW[0]]
    assert str(before) == "ollama.service of Ollama 0.1.0"
    assert any(f"cp -a -- /etc/systemd/system/{OLD}" in line for line in lines(keep(before)))
    host.running = NEW
    said = lines(put_back(before))
    stopped = [line for line in said if "disable --now" in line]
    assert [line.split()[-1] for line in stopped] == list(NEW)
    [restart] = [line for line in said if "systemctl restart" in line]
    assert f"systemctl restart {OLD}" in restart
    assert said.index(stopped[-1]) < said.index(restart)
    asked = [line for line in said if "/api/version" in line]
    assert len(asked) == 1
    assert ":11434/" in asked[0]


def test_only_what_was_there_is_waited_for(me: FleetHost, host: Host) -> None:
    """A server that is new in this deploy starts in a later step."""
    assert host.running == (OLD,)
    there = servers_there(me)
    said = "".join(lines(answers(me, there, [])))
    assert ":11434/" in said
    assert ":11435/" not in said
    models_of(me, there)
    assert ":11434" in host.asked[-1]["config"]
    assert ":11435" not in host.asked[-1]["config"]


@pytest.mark.parametrize(
    ("answering", "active", "file", "found"),
    [
        ("10.0.0.11:11434", "", "", "here"),
        ("", "one.service", "OLLAMA_HOST=10.0.0.11:11434", "here"),
        ("", "one.service", "OLLAMA_HOST=10.0.0.11:114345", ""),
        ("", "", "OLLAMA_HOST=10.0.0.11:11434", ""),
    ],
    ids=["answers", "about to answer", "other port", "stopped"],
)
def test_which_servers_there_are(
    tmp_path: Path, answering: str, active: str, file: str, found: str
) -> None:
    programs = {
        "curl": f'case "$*" in *http://{answering or "-"}/*) exit 0;; *) exit 22;; esac',
        "systemctl": f'[ "$3" = "{active or "-"}" ]',
    }
    for name, text in programs.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    (tmp_path / "one.service").write_text(f'Environment="{file}"\n')
    command = ServersThere().command({"one.service": "10.0.0.11:11434"}).get_raw_value()
    done = subprocess.run(
        ["sh", "-c", command.replace("/etc/systemd/system", str(tmp_path))],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("here" if done.stdout.split() == ["one.service"] else "") == found


def test_a_disk_without_room_is_refused_while_nothing_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... in words, and what was tried is gone."""
    me = fleet_of({"gpu1": GPU})["gpu1"]
    for name in ("UNITS", "STARTED", "RUN"):
        monkeypatch.setattr(module, name, str(tmp_path / name))

    def tried() -> list[subprocess.CompletedProcess[str]]:
        return [
            subprocess.run(
                ["sh", "-c", command.get_raw_value()], capture_output=True, text=True, check=False
            )
            for command in module.refuse_without_room(me)
        ]

    assert [(done.returncode, done.stderr) for done in tried()] == [(0, "")] * 3
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "head").write_text('#!/bin/sh\nexec /usr/bin/head "$@" >/dev/full\n')
    (programs / "head").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for done, name in zip(tried(), ("UNITS", "STARTED", "RUN"), strict=True):
        assert done.returncode == 1
        assert done.stderr.startswith(f"gpu1: {tmp_path / name} has no room: make room there")
        assert list((tmp_path / name).iterdir()) == []
