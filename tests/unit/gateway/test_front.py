"""A gateway as a run changes it. Real ones are in tests/lab."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyinfra.api import Host, State

import fleet.gateway.front as module
from fleet.declare.fleet import Fleet
from fleet.gateway.facts import DrainedHosts, ServedServers
from fleet.gateway.front import Change, Door, Front
from fleet.gateway.paths import GATEWAY_DIR
from fleet.kit.connection.careful import Careful
from fleet.kit.errors import FleetError
from tests.fleets import EDGE, GPU, fleet_of

pytestmark = pytest.mark.usefixtures("own_secrets")


@dataclass
class Nginx:
    """A gateway's disk, and whether nginx loads what is there."""

    written: list[dict[str, list[str]]] = field(default_factory=list)
    broken: bool = False

    def carry_out(self, _state: object, _host: object, step: Any) -> str:
        """What a door has done: files that are written, or a reload."""
        if isinstance(step, list):
            self.written.append(
                {
                    PurePosixPath(str(file.path)).stem: [
                        line.strip()
                        for line in file.content.splitlines()
                        if line and not line.startswith("#")
                    ]
                    for file in step
                }
            )
            return ""
        return "nginx does not reload" if self.broken else ""


@pytest.fixture
def nginx(monkeypatch: pytest.MonkeyPatch) -> Nginx:
    """What the doors of a test change."""
    made = Nginx()
    monkeypatch.setattr(module, "carry_out", made.carry_out)
    monkeypatch.setattr(
        module, "install_files", SimpleNamespace(_inner=lambda files, **_: list(files))
    )
    monkeypatch.setattr(module, "run_unit", SimpleNamespace(_inner=lambda **_: "reload"))
    return made


def fleet(**gpu: Any) -> Fleet:
    hosts = {
        f"gpu{n}": ("gpu", {**GPU[1], "private_address": f"10.0.0.1{n}", **gpu}) for n in (1, 2)
    }
    return fleet_of({**hosts, "edge": EDGE})


def door(declared: Fleet, *served: str, drained: tuple[str, ...] = ()) -> Door:
    """The gateway of `declared`, which has been looked at."""
    inventory = SimpleNamespace(get_host=lambda _: None)
    made = Door(cast("State", SimpleNamespace(inventory=inventory)), declared, declared["edge"])
    facts = {ServedServers: served, DrainedHosts: dict.fromkeys(drained, "")}
    made.host = cast(
        "Host", SimpleNamespace(get_fact=lambda fact, **_: facts.get(fact), connector=None)
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(made, "_connect", lambda: None)
        made.look()
    return made


def front(*doors: Door) -> Front:
    """These gateways."""
    made = object.__new__(Front)
    made.doors, made.bare, made.missing, made.taken = list(doors), [], {}, {}
    made._out, made._fleet = set(), doors[0]._fleet
    return made


def test_what_was_found_in_a_files_place_is_not_in_the_way_of_a_check(tmp_path: Path) -> None:
    stage, there, programs = (tmp_path / name for name in ("stage", "there", "programs"))
    for folder in (stage, there / "served.found.abcdef", programs):
        folder.mkdir(parents=True)
    (stage / "nginx.conf").write_text("new")
    for name in ("nginx.conf", "keys.conf"):
        (there / name).write_text("old")
    nginx = programs / "nginx"
    nginx.write_text("#!/bin/sh\nexit 0\n")
    nginx.chmod(0o755)
    line = module._CHECK.get_raw_value().replace(str(GATEWAY_DIR), str(there))
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", line], cwd=stage, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert {item.name: item.read_text() for item in stage.iterdir()} == {
        "nginx.conf": "new",
        "keys.conf": "old",
    }


def test_what_is_on_the_disk_is_put_right_after_a_reload_that_failed(nginx: Nginx) -> None:
    declared, nginx.broken = fleet(), True
    edge = door(declared, "gpu1", "gpu2")
    with pytest.raises(FleetError, match="nginx does not reload"):
        edge.change(Change(declared["gpu1"], served=False))
    nginx.broken = False
    edge.change(Change(declared["gpu1"], served=True))
    assert [item["served"] for item in nginx.written] == [["gpu2"], ["gpu1", "gpu2"]]


@pytest.mark.parametrize(("active", "fails"), [([1, 0, 0, 0], False), ([1, 1, 1], True)])
def test_only_requests_that_run_are_waited_for_in_vain(
    monkeypatch: pytest.MonkeyPatch, active: list[int], fails: bool
) -> None:
    declared, left, clock = fleet(), list(active), iter(range(100))
    edge = door(declared, "gpu1", "gpu2")
    monkeypatch.setattr(edge, "in_flight", lambda _: left.pop(0) if left else active[-1])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(module.gevent, "sleep", lambda _: None)
    said: list[str] = []
    if fails:
        with pytest.raises(FleetError, match="1 requests still run after 2 s"):
            front(edge).wait_until_idle(declared["gpu1"], 2, said.append)
    else:
        front(edge).wait_until_idle(declared["gpu1"], 2, said.append)
    assert said == ["gpu1: 1 requests in flight"]


def test_servers_with_other_names_are_taken_out_in_turn(nginx: Nginx) -> None:
    """None of them is down meanwhile, whoever writes down who gets requests."""
    declared = fleet(ollama_instances=[{"name": "a", "port": 11434}])
    edge = door(declared, "gpu1", "gpu2")
    assert edge.in_service() == {"gpu1", "gpu2"}
    assert not front(edge).without_another(declared["gpu1"])
    edge.change(Change(declared["gpu1"], served=False))
    edge.change(Change(declared["gpu1"], served=True))
    assert [item["served"] for item in nginx.written] == [["gpu2/a"], ["gpu1/a", "gpu2/a"]]
    down = [[line for line in item["servers"] if "down" in line] for item in nginx.written]
    assert [len(lines) for lines in down] == [1, 0]


def test_a_gateway_where_another_run_is_at_work_is_not_a_dead_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declared = fleet()
    monkeypatch.setattr(Careful, "__abstractmethods__", frozenset())
    monkeypatch.setattr(Careful, "holds", False)
    monkeypatch.setattr(Careful, "hold", lambda _: "alice@desk, run 1 since today")
    connector = object.__new__(Careful)
    edge = SimpleNamespace(connect=lambda **_: None, connector=connector)
    inventory = SimpleNamespace(get_host=lambda _: edge, get_override_data=dict)
    state = SimpleNamespace(inventory=inventory, failed_hosts=[])
    made = Front(cast("State", state), declared)
    assert (made.missing, list(made.taken)) == ({}, ["edge"])
    assert "edge: another deploy is at work there: by alice@desk" in made.taken["edge"]


def test_who_is_about_to_leave_is_counted_on_no_more(nginx: Nginx) -> None:
    """Two that ask at the same time: gateways are told later than that."""
    declared = fleet()
    both = front(door(declared, "gpu1", "gpu2"))
    nobody = {"edge": ["gpt-oss:20b"]}
    assert both.leave(declared["gpu1"]) == {}
    assert both.leave(declared["gpu2"]) == nobody
    both.change(Change(declared["gpu1"], served=False))
    assert both.leave(declared["gpu2"]) == nobody
    both.change(Change(declared["gpu1"], served=True))
    assert both.leave(declared["gpu2"]) == {}
    assert len(nginx.written) == 2


class TestDifferentModels:
    """What one host alone has, nobody else answers for."""

    @staticmethod
    def mixed(*models: list[str], **gateway: Any) -> Fleet:
        hosts: dict[str, Any] = {
            f"gpu{n}": (
                "gpu",
                {**GPU[1], "private_address": f"10.0.0.1{n}", "ollama_models": names},
            )
            for n, names in enumerate(models, 1)
        }
        return fleet_of({**hosts, "edge": ("gateway", {**EDGE[1], **gateway})})

    def test_models_are_named(self) -> None:
        declared = self.mixed(["a", "b:1"], ["b:1", "C"], ["B:1", "c:latest"])
        all_three = front(door(declared, "gpu1", "gpu2", "gpu3"))
        assert all_three.without_another(declared["gpu1"]) == {"edge": ["a"]}
        assert all_three.without_another(declared["gpu2"]) == {}
        two = front(door(declared, "gpu1", "gpu2", "gpu3", drained=("gpu3",)))
        assert two.without_another(declared["gpu2"]) == {"edge": ["C"]}
        # One that gets no requests leaves nobody without an answer.
        assert two.without_another(declared["gpu3"]) == {}

    def test_what_stands_in_answers(self) -> None:
        instead = {"gateway_fallbacks": {"a": "b", "b": "c"}}
        declared = self.mixed(["a"], ["b"], ["c"], **instead)
        three = front(door(declared, "gpu1", "gpu2", "gpu3"))
        assert three.without_another(declared["gpu1"]) == {}
        assert three.leave(declared["gpu2"]) == {}
        assert three.leave(declared["gpu3"]) == {"edge": ["c"]}
        assert three.leave(declared["gpu1"]) == {}

    @pytest.mark.parametrize(
        ("models", "most"),
        [
            ([["a"], ["a"], ["a"], ["a"]], 3),
            ([["a", "b"], ["a", "b"], ["a"], ["a"]], 1),
            ([["a"], ["b"]], 1),
            ([["a"], ["a", "b"], ["a", "c"]], 2),
        ],
    )
    def test_so_many_are_out_that_each_model_is_answered(
        self, models: list[list[str]], most: int
    ) -> None:
        declared = self.mixed(*models)
        names = [item.name for item in declared.servers()]
        assert front(door(declared, *names)).most_at_once() == most


def test_a_gateway_is_not_looked_for_where_the_command_line_leads_every_host() -> None:
    """It would be the host that the run is about, with another's name."""
    declared = fleet()
    inventory = SimpleNamespace(
        get_host=lambda _: SimpleNamespace(connected=False),
        get_override_data=lambda: {"ssh_hostname": "10.9.0.1"},
    )
    made = Door(cast("State", SimpleNamespace(inventory=inventory)), declared, declared["edge"])
    with pytest.raises(FleetError, match="edge: --data ssh_hostname leads every host to one"):
        made.look()
