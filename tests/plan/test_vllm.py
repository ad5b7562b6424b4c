"""vLLM's own steps, planned: from bare, again without a change, and what is refused before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.server import Groups, Users

from fleet.docker.facts import DockerImage
from fleet.driver.facts import (
    DrivenGpu,
    DrivenGpus,
    DriverState,
    DriverStateFact,
    Gpu,
    GpuHardware,
    GpuHardwareFact,
    Module,
)
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.jobs import LoggedJob, LoggedRun
from fleet.kit.facts.places import Place, Places
from fleet.kit.facts.units import UnitState
from fleet.vllm.facts import GpuSizes, MakesToken, Venv, Venvs, VllmServers, VllmUnits, WeightsThere
from fleet.vllm.memory import GIB, Weights
from fleet.weights.lock import Lock, LockedFile, lock_text
from tests.fleets import EDGE, Hosts
from tests.plan.jobs import job
from tests.plan.simulation import (
    RUNNING,
    Answers,
    Plan,
    bare,
    everything_shown,
    plan,
    secrets_of,
)
from tests.plan.test_gates import UUIDS as GATES_UUIDS
from tests.plan.test_gates import with_gpus
from tests.unit.vllm.servers import GPTOSS, IMAGE, SERVER, UUIDS

H100 = tuple(DrivenGpu(index, uuid, "NVIDIA H100") for index, uuid in enumerate(UUIDS))
ON_THE_BUS = GpuHardware(tuple(Gpu(f"0000:{17 + index}:00.0", 0x2330) for index in range(2)))
LOCK = "vllm==0.32.0 --hash=sha256:" + "ab" * 32 + "\n"
UNIT, TIMER = "vllm@gpt-oss.service", "vllm-watch@gpt-oss.timer"
JUDGE = "vLLM | Judge whether the servers fit"
FINAL = "vLLM | Judge whether the servers fit the GPUs"


def driver(version: str) -> DriverState:
    module = Module(version, "open")
    return DriverState("6.12", loaded=module, installed=module)


def hosts(server: dict[str, Any] | None = None, **data: Any) -> Hosts:
    """A GPU host that only vLLM runs on, behind a gateway; its driver is somebody else's."""
    settings = {
        "private_address": "10.0.0.11",
        "driver_source": "none",
        "docker_enabled": True,
        "vllm_image": IMAGE,
        "vllm_listen": "private",
        "vllm_servers": [{**SERVER, **(server or {})}],
        **data,
    }
    return {"gpu1": ("vllm", settings), "edge": EDGE}


def in_a_venv(project: Path, server: dict[str, Any] | None = None) -> Hosts:
    project.mkdir(exist_ok=True)
    (project / "vllm.lock").write_text(LOCK)
    unset = {"vllm_image": None, "docker_enabled": False}
    chosen = {"vllm_runtime": "venv", "vllm_lock": "vllm.lock"}
    declared = hosts(server)["gpu1"][1]
    kept = {key: value for key, value in declared.items() if key not in unset}
    return {"gpu1": ("vllm", {**kept, **chosen}), "edge": EDGE}


def given(gib: int = 80, version: str = "580.95.05", weights: Weights | None = None) -> Answers:
    return bare() | {
        GpuHardwareFact: lambda: ON_THE_BUS,
        DrivenGpus: lambda: H100,
        GpuSizes: lambda: dict.fromkeys(UUIDS, gib * GIB),
        DriverStateFact: lambda nouveau_conf: driver(version),
        WeightsThere: lambda folder: weights or Weights(61 * GIB, GPTOSS),
        LoggedJob: job(LoggedRun("active", "", "doing"), LoggedRun()),
    }


def planned(declared: Hosts, answers: Answers | None = None, **kwargs: Any) -> Plan:
    return plan(declared, {"gpu1": answers or given(), "edge": bare()}, **kwargs)


def own(done: Plan) -> list[str]:
    return [name for name in done.names("gpu1") if name.startswith("vLLM")]


class TestFromBare:
    def test_image(self) -> None:
        done = planned(hosts())
        assert own(done)[-5:] == [
            "vLLM | Pull the image",
            "vLLM | Install the units",
            "vLLM | Run vLLM as declared: gpt-oss",
            "vLLM | Watch gpt-oss",
            "vLLM | Have gpt-oss answer",
        ]
        assert {f"/etc/systemd/system/{name}" for name in (UNIT, TIMER)} <= set(done.files("gpu1"))
        assert not [name for name in done.names("gpu1") if name.startswith(("Ollama", "Models"))]

    def test_gateway_hears_of_it_when_it_has_made_a_token(self) -> None:
        done = planned(hosts())
        asked = done.index("gpu1", r"until curl .*/v1/completions")
        started = done.index("gpu1", rf"systemctl restart {UNIT}")
        assert started < asked
        [told] = [line for line in done.order if line.endswith("Let the host in")]
        assert done.order.index("gpu1: vLLM | Have gpt-oss answer") < done.order.index(told)

    def test_firewall_lets_in_the_gateway_alone(self) -> None:
        ruleset = planned(hosts()).files("gpu1")["/etc/llm-fleet/firewall.nft"][0]
        lines = [line for line in ruleset.splitlines() if re.search(r"\b8000\b", line)]
        assert lines
        assert [line for line in lines if "10.0.0.2/32" not in line] == []

    def test_gateway_knows_both_names(self) -> None:
        declared = planned(hosts()).files("edge")["/etc/llm-fleet/gateway/declared.lua"][0]
        for text in ('"@fake/gpu1/gpt-oss"', '"gpt-oss:120b"', '"openai/gpt-oss-120b"'):
            assert text in declared
        [surfaces] = re.findall(r'\["surfaces"\] = \{(.*?)\}', declared)
        assert set(re.findall(r'"(\w+)"', surfaces)) == {"openai", "anthropic"}

    def test_unit_has_gpus_by_uuid_and_the_model_s_parser(self) -> None:
        text = planned(hosts()).files("gpu1")[f"/etc/systemd/system/{UNIT}"][0]
        assert all(f"nvidia.com/gpu={uuid} " in text for uuid in UUIDS)
        assert '"--tool-call-parser" "openai"' in text
        assert '"--tensor-parallel-size" "2"' in text

    def test_no_secret_is_shown(self, secrets_store: Path) -> None:
        done = planned(hosts())
        shown = everything_shown(done)
        values = secrets_of(secrets_store)
        assert values
        assert [value for value in values if value in shown] == []


class TestVenv:
    def test_packages_come_beside_what_runs(self, project: Path) -> None:
        done = planned(in_a_venv(project))
        names = own(done)
        assert names.index("vLLM | Install the locked packages") < names.index(
            "vLLM | Switch to the locked packages"
        )
        [start, checked] = [
            line
            for line in done.step("gpu1", "vLLM | Install the locked packages").lines
            if "/opt/vllm/" in line
        ]
        assert "/usr/local/lib/llm-fleet/vllm-venv /opt/vllm/" in start
        assert "https://pypi.org/simple" in start
        assert "ProtectSystem=strict" in start
        assert ".llm-fleet-lock" in checked
        assert done.files("gpu1")["/etc/llm-fleet/vllm-requirements.txt"][0] == LOCK

    def test_lock_that_is_not_there_is_refused(self, project: Path) -> None:
        declared = in_a_venv(project)
        (project / "vllm.lock").unlink()
        with pytest.raises(Exception, match=r"vllm_lock = 'vllm\.lock': no such file"):
            planned(declared)

    def test_lock_without_hashes_is_refused(self, project: Path) -> None:
        declared = in_a_venv(project)
        (project / "vllm.lock").write_text("vllm==0.32.0\n")
        with pytest.raises(Exception, match="has no hashes"):
            planned(declared)


def converged(first: Plan) -> Answers:
    """What the host answers once `first` was run."""
    files = {path: state for path, (_, state) in first.files("gpu1").items()}
    installs = [line for line in first.lines("gpu1") if "apt-get" in line and " install " in line]
    packages = {
        name: ["1"]
        for line in installs
        for name in line.split("--no-install-recommends ")[1].split(" ;")[0].split()
    }
    own_directory = "/var/cache/vllm/gpt-oss"

    def place(path: str) -> Place:
        user, mode = ("vllm", "700") if path == own_directory else ("root", "755")
        return Place(path, path, "directory", user, user, mode)

    user = {"home": "/var/cache/vllm", "shell": "/usr/sbin/nologin", "group": "vllm"}
    return given() | {
        FileStates: lambda paths: {path: files[path] for path in paths if path in files},
        Places: lambda paths: {path: place(path) for path in paths},
        DebPackages: lambda: packages,
        Groups: lambda: ["root", "vllm"],
        Users: lambda: {"vllm": user},
        UnitState: lambda unit, files, reloaded=False: RUNNING,
        DockerImage: lambda reference: reference == IMAGE,
        VllmServers: lambda: VllmUnits((f"/etc/systemd/system/{UNIT}",), (UNIT,)),
        MakesToken: lambda url, model: True,
    }


class TestAgain:
    def test_nothing_of_its_own_is_changed(self) -> None:
        first = planned(hosts())
        assert own(planned(hosts(), converged(first))) == []

    def test_venv_neither(self, project: Path) -> None:
        declared = in_a_venv(project)
        first = planned(declared)
        answers = converged(first)
        [lock] = [
            state.sha256
            for path, (_, state) in first.files("gpu1").items()
            if path.endswith("vllm-requirements.txt")
        ]
        answers[Venvs] = lambda directory: Venv(lock, directory)
        assert own(planned(declared, answers)) == []

    def test_new_image_is_pulled_before_it_is_switched_to(self) -> None:
        first = planned(hosts())
        newer = IMAGE.replace("ab" * 32, "cd" * 32)
        names = own(planned(hosts(vllm_image=newer), converged(first)))
        # The last one does nothing after the one before it, whose files a plan does not lay down.
        assert names == [
            "vLLM | Pull the image",
            "vLLM | Restart what runs, in turn",
            "vLLM | Install the units",
        ]

    def test_server_that_is_declared_no_more_is_stopped(self) -> None:
        first = planned(hosts())
        other = hosts({"name": "other"})
        answers = converged(first)
        done = planned(other, answers)
        lines = done.lines("gpu1")
        assert any(f"systemctl stop {UNIT}" in line for line in lines)

    def test_one_that_makes_no_token_is_waited_for(self) -> None:
        answers = converged(planned(hosts())) | {MakesToken: lambda url, model: False}
        assert own(planned(hosts(), answers)) == ["vLLM | Have gpt-oss answer"]


class TestRefused:
    @pytest.mark.parametrize(
        ("answers", "said"),
        [
            (given(gib=39), "of each GPU (weights 30.5 GiB, cache of one request 2."),
            (given(version="575.57.08"), "driver is 575.57.08, of branch 575"),
            (given() | {DrivenGpus: lambda: H100[:1]}, f"the host has no {UUIDS[1]}"),
        ],
        ids=["memory", "driver", "GPU"],
    )
    def test_before_anything_is_changed(self, answers: Answers, said: str) -> None:
        done = planned(hosts(), answers)
        assert done.names("gpu1")[0] == JUDGE
        assert any(said in line for line in done.step("gpu1", JUDGE).lines), done.step(
            "gpu1", JUDGE
        )

    def test_context_beyond_the_model_s(self) -> None:
        [line] = planned(hosts({"context": 262_144})).step("gpu1", JUDGE).lines
        assert "context = 262144: the model was made for 131072" in line

    @pytest.mark.parametrize(
        ("weights", "lacks"),
        [
            (Weights(), "has no config.json that can be read"),
            (Weights(0, GPTOSS), "has no *.safetensors"),
        ],
    )
    def test_weights_of_others_that_are_not_there(self, weights: Weights, lacks: str) -> None:
        done = planned(hosts(), given() | {WeightsThere: lambda folder: weights})
        assert done.names("gpu1")[0] == JUDGE
        [line] = done.step("gpu1", JUDGE).lines
        assert f"/srv/weights/gpt-oss-120b {lacks}" in line

    def test_gpus_that_tell_after_the_operators_reboot_alone(self) -> None:
        """The driver of this host is installed, and another one is loaded."""
        loaded, installed = Module("580.65.06", "open"), Module("580.95.05", "open")
        waits = DriverState("6.12", loaded=loaded, installed=installed)
        answers = given() | {
            DrivenGpus: tuple,
            GpuSizes: dict,
            DriverStateFact: lambda nouveau_conf: waits,
        }
        done = planned(hosts(), answers)
        assert JUDGE not in done.names("gpu1")
        [line] = done.step("gpu1", "vLLM | Install the units").lines
        assert "can be given GPUs after the reboot only" in line


class TestBesideOllama:
    @staticmethod
    def memory_step(share: float) -> list[str]:
        """What the judgement of Ollama's models says where a vLLM server has a part of its GPU."""
        declared = hosts({"gpus": [0], "shared_gpus": True, "memory_share": share})["gpu1"][1]
        instances = [{"name": "a", "port": 11434, "gpus": [0]}]
        ollama = {"ollama_listen": "private", "ollama_instances": instances}
        # Another name than Ollama's model on this host.
        server = {**declared["vllm_servers"][0], "served_names": ["large"]}
        data = {**declared, **ollama, "vllm_servers": [server]}
        answers = with_gpus(81_559, 81_559) | {
            GpuSizes: lambda: dict.fromkeys(GATES_UUIDS[:2], 81_559 << 20),
            WeightsThere: lambda folder: Weights(20 * GIB, GPTOSS),
            LoggedJob: job(LoggedRun("active", "", "doing"), LoggedRun()),
        }
        done = plan({"gpu1": ("gpu vllm", data), "edge": EDGE}, {"gpu1": answers, "edge": bare()})
        return done.step("gpu1", "Memory | Judge whether the models fit").lines

    def test_ollama_has_what_vllm_leaves(self) -> None:
        assert self.memory_step(0.5) == []

    def test_ollama_has_no_more_than_that(self) -> None:
        [line] = self.memory_step(0.9)
        assert "gpt-oss:20b" in line
        assert "8.0 GiB" in line


class TestWeightsByName:
    """... which the deploy provides, as their lock says."""

    FOLDER = f"/var/lib/llm-fleet-weights/large/{'ab' * 20}"

    @staticmethod
    def declared(project: Path, gib: int = 61) -> Hosts:
        """The server with weights of so many GiB that nobody has fetched yet."""
        weights = {"repository": "openai/gpt-oss-120b", "revision": "ab" * 20}
        files = [
            LockedFile(path="config.json", size=8, sha256="ab" * 32),
            LockedFile(path="model.safetensors", size=gib * GIB, sha256="cd" * 32),
        ]
        project.mkdir(exist_ok=True)
        lock = Lock(source="huggingface", include=("*",), exclude=(), files=tuple(files), **weights)
        (project / "large.lock").write_text(lock_text(lock))
        named = {**weights, "name": "large", "lock": "large.lock"}
        return hosts({"weights": "large"}, weights=[named])

    def test_they_are_there_before_the_server(self, project: Path) -> None:
        names = planned(self.declared(project)).names("gpu1")
        assert names.index("Weights | Provide the weights") < names.index(
            "vLLM | Run vLLM as declared: gpt-oss"
        )

    def test_unit_has_their_folder(self, project: Path) -> None:
        text = planned(self.declared(project)).files("gpu1")[f"/etc/systemd/system/{UNIT}"][0]
        assert f'"--model" "{self.FOLDER}"' in text
        assert f"RequiresMountsFor={self.FOLDER} " in text

    def test_they_are_judged_before_they_are_fetched(self, project: Path) -> None:
        answers = given() | {WeightsThere: lambda folder: Weights()}
        [line] = planned(self.declared(project, 160), answers).step("gpu1", JUDGE).lines
        assert "needs 83.0 GiB of each GPU (weights 80.0 GiB" in line

    def test_those_that_are_not_there_yet_stop_what_needs_them(self, project: Path) -> None:
        answers = given() | {WeightsThere: lambda folder: Weights()}
        [line] = planned(self.declared(project), answers).step("gpu1", FINAL).lines
        assert "weights: large are not there yet" in line
