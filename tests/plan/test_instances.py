"""Several Ollama servers on a host, planned."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Any

import pytest

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
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileState, FileStates
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.facts.jobs import LoggedJob, LoggedRun
from fleet.kit.facts.listeners import Listener, Listeners
from fleet.kit.facts.places import Place, Places
from fleet.kit.facts.units import UnitState
from fleet.ollama.facts import OllamaServers, Servers
from tests.fleets import EDGE, GPU, Hosts
from tests.plan.conftest import from_bare, in_declared_state
from tests.plan.jobs import job
from tests.plan.simulation import RUNNING, Answers, Plan, bare, plan

UUIDS = [f"GPU-5a3f1c00-0000-4000-8000-{index:012}" for index in range(3)]
THREE = tuple(DrivenGpu(index, uuid, "NVIDIA H100") for index, uuid in enumerate(UUIDS))
ON_THE_BUS = GpuHardware(tuple(Gpu(f"0000:{17 + index}:00.0", 0x2330) for index in range(3)))
A: dict[str, Any] = {"name": "a", "port": 11434, "gpus": [0, 1]}
B: dict[str, Any] = {"name": "b", "port": 11435, "gpus": [2]}
IMAGE = f"ollama/ollama:0.32.7@sha256:{'ab' * 32}"
CONTAINER = {**B, "runtime": "docker"}
DOCKER: dict[str, Any] = {"docker_enabled": True, "ollama_image": IMAGE}
FOLDER = "/etc/systemd/system"
INSTALL = "Ollama | Install the instances' units"
REFUSE = "Instances | Refuse GPUs that are not there"
REMOVE = "Ollama | Remove servers that are not declared"


def hosts(*instances: dict[str, Any], **settings: Any) -> Hosts:
    # The driver has tests of its own.
    data = {
        **GPU[1],
        "gpu_count": None,
        "driver_source": "none",
        **settings,
        "ollama_instances": list(instances),
    }
    return {"gpu1": ("gpu", data), "edge": EDGE}


def answers(gpus: tuple[DrivenGpu, ...] = THREE) -> Answers:
    hardware = {GpuHardwareFact: lambda: ON_THE_BUS, DrivenGpus: lambda: gpus}
    return bare() | hardware


def planned(*instances: dict[str, Any], given: Answers | None = None, **settings: Any) -> Plan:
    return plan(hosts(*instances, **settings), {"gpu1": given or answers(), "edge": bare()})


def refused(done: Plan) -> str:
    """What gpu1 is refused with, by the first of all its steps."""
    assert done.names("gpu1")[0] == REFUSE
    [line] = done.step("gpu1", REFUSE).lines
    assert line.startswith("printf '%s\\n' ")
    assert line.endswith(" >&2; exit 1")
    return line


def unit(done: Plan, name: str) -> str:
    return done.files("gpu1")[f"{FOLDER}/ollama@{name}.service"][0]


def test_from_bare() -> None:
    names = planned(A, B).names("gpu1")
    assert [name for name in names if name.startswith("Ollama")][-6:] == [
        "Ollama | Install Ollama 0.32.7",
        "Ollama | Try what changes",
        "Ollama | Switch to Ollama 0.32.7",
        INSTALL,
        "Ollama | Run Ollama as declared: a",
        "Ollama | Run Ollama as declared: b",
    ]
    assert [name for name in names if name.startswith("Models")]


def test_each_unit_has_its_gpus_by_uuid() -> None:
    done = planned(A, {**B, "gpus": [UUIDS[2]]})
    assert f'"CUDA_VISIBLE_DEVICES={UUIDS[0]},{UUIDS[1]}"' in unit(done, "a")
    assert f'"CUDA_VISIBLE_DEVICES={UUIDS[2]}"' in unit(done, "b")
    for name, port in (("a", 11434), ("b", 11435)):
        lines = done.step("gpu1", f"Ollama | Run Ollama as declared: {name}").lines
        restart, health = [line for line in lines if "journalctl" in line]
        assert f"systemctl restart ollama@{name}.service" in restart
        assert f"http://10.0.0.11:{port}/api/version" in health


def test_units_are_judged_before_they_are_laid_down() -> None:
    lines = planned(A, B).step("gpu1", INSTALL).lines
    [check] = [line for line in lines if "systemd-analyze verify" in line]
    assert "./ollama@a.service" in check
    assert "./ollama@b.service" in check
    assert lines.index(check) < min(i for i, line in enumerate(lines) if "install -D" in line)


def test_gateway_and_firewall_know_both() -> None:
    done = planned(A, B)
    declared = done.files("edge")["/etc/llm-fleet/gateway/declared.lua"][0]
    assert re.findall(
        r'"@fake/(gpu1\S+)",.*?\["address"\] = "(\S+)", \["port"\] = (\d+)', declared
    ) == [
        ("gpu1/a", "10.0.0.11", "11434"),
        ("gpu1/b", "10.0.0.11", "11435"),
    ]
    ruleset = done.files("gpu1")["/etc/llm-fleet/firewall.nft"][0]
    assert [port for port in (11434, 11435) if f"10.0.0.2/32 }} tcp dport {port}" in ruleset]
    assert "proto-dst" not in ruleset.split("chain published")[1]


def test_single_servers_names_at_the_gateway_stay() -> None:
    text = from_bare("two hosts").files("edge")["/etc/llm-fleet/gateway/declared.lua"][0]
    assert re.findall(r'"@fake/(\S+)", \["host"\]', text) == ["gpu1"]


class TestGpus:
    def test_driver_of_this_very_run_is_asked_when_it_works(self) -> None:
        """Nothing is known while it is planned; on a host that stays so, the step fails alone."""
        done = planned(A, B, given=answers(gpus=()))
        [line] = done.step("gpu1", INSTALL).lines
        assert "gpu1: nvidia-smi does not tell of the GPUs on the bus" in line
        assert line.endswith(">&2; exit 1")

    @pytest.mark.parametrize(
        ("units", "words"),
        [
            (["a", "b"], None),
            (["a"], f"gpu1: {FOLDER}/ollama@b.service can be given GPUs after the reboot only"),
        ],
        ids=["there", "new"],
    )
    def test_reboot_that_is_the_operators_is_waited_for(
        self, units: list[str], words: str | None
    ) -> None:
        """nvidia-smi is of the new driver already, and says nothing but that they do not match."""
        there = {
            f"{FOLDER}/ollama@{name}.service": FileState("0", "644", "root", "root")
            for name in units
        }
        waiting = DriverState(
            kernel="6.12",
            loaded=Module("570.211.01", "open"),
            installed=Module("580.178.04", "open"),
        )
        given = answers(gpus=()) | {
            DriverStateFact: lambda nouveau_conf: waiting,
            FileStates: lambda paths: {path: there[path] for path in paths if path in there},
        }
        done = planned(A, B, given=given)
        lines = done.step("gpu1", INSTALL).lines
        assert [words in line for line in lines] == [True] if words else lines == []

    @pytest.mark.parametrize(
        ("gpus", "words"),
        [
            ([2, 3], "b: gpus = [2, 3]: the host has no 3; it has 0: NVIDIA H100 (GPU-"),
            ([UUIDS[2][:-1] + "9"], "it has 0: NVIDIA H100 (GPU-"),
            ([UUIDS[1]], f"a and b both have {UUIDS[1]}; give each its own"),
            ([2, UUIDS[2]], "names a GPU twice, by index and by UUID"),
        ],
        ids=["index", "uuid", "overlap", "twice"],
    )
    def test_refused_with_what_there_is(self, gpus: list[Any], words: str) -> None:
        assert words in refused(planned(A, {**B, "gpus": gpus}))

    def test_refused_by_the_bus_alone(self) -> None:
        said = refused(planned(A, {**B, "gpus": [3]}, given=answers(gpus=())))
        assert "the host has no 3; it has 0000:17:00.0 [10de:2330" in said

    def test_refused_without_any(self) -> None:
        said = refused(planned(A, given=bare()))
        assert "a: gpus = [0, 1]: the host has no 0; it has no NVIDIA GPU" in said

    def test_dead_card_of_one_host_stops_no_other(self) -> None:
        """What fails is its own first step; the other host's plan is whole."""
        one = hosts(A, B)
        two = {**one, "gpu2": ("gpu", {**one["gpu1"][1], "private_address": "10.0.0.12"})}
        given = {"gpu1": answers(gpus=THREE[:2]), "gpu2": answers(), "edge": bare()}
        done = plan(two, given)
        assert "b: gpus = [2]: the host has no 2" in refused(done)
        assert REFUSE not in done.names("gpu2")
        assert "ollama@b.service" in "".join(done.files("gpu2"))
        assert [name for name in done.names("edge") if name.startswith("Gateway")]

    def test_all_of_none_is_the_processor(self) -> None:
        done = planned({**A, "gpus": "all"}, {**B, "gpus": []}, given=bare())
        assert "CUDA_VISIBLE_DEVICES" not in unit(done, "a")
        assert '"CUDA_VISIBLE_DEVICES=-1"' in unit(done, "b")


class TestContainer:
    @pytest.fixture
    def done(self) -> Plan:
        given = answers() | {LoggedJob: job(LoggedRun("inactive", "success", "pulled"))}
        return planned(A, CONTAINER, given=given, **DOCKER)

    def test_image_is_pulled_by_the_host_before_the_units_are_laid_down(self, done: Plan) -> None:
        *_, start, found = done.step("gpu1", "Ollama | Pull the image").lines
        program = "/usr/local/lib/llm-fleet/pull-image"
        assert "--setenv LC_ALL=C --unit llm-fleet-pull-ollama.service " in start
        assert f" {program} {IMAGE}" in start
        assert f"docker image inspect --format '{{{{.Id}}}}' {IMAGE}" in found
        assert done.order.index("gpu1: Ollama | Pull the image") < done.order.index(
            f"gpu1: {INSTALL}"
        )

    def test_image_that_is_there_is_not_pulled(self) -> None:
        given = answers() | {DockerImage: lambda reference: reference == IMAGE}
        done = planned(A, CONTAINER, given=given, **DOCKER)
        assert "Ollama | Pull the image" not in done.names("gpu1")

    def test_closed_in_and_given_its_gpus(self, done: Plan) -> None:
        text = " ".join(unit(done, "b").replace("\\\n", " ").split())
        for words in (
            "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--pull never",
            '--user "$$(id -u ollama):$$(id -g ollama)"', "--publish 10.0.0.11:11435:11435",
            f"--device nvidia.com/gpu={UUIDS[2]} ", f"{IMAGE} serve'", "--env OLLAMA_HOST ",
            "source=/var/lib/ollama,target=/var/lib/ollama",
        ):  # fmt: skip
            assert words in text, words
        # Below the home, which the server's user writes, it could be a link to anything.
        assert "source=/var/lib/ollama/" not in text
        assert text.count("--device") == 1
        # By name alone: a value would be in the list of processes.
        assert 'Environment="OLLAMA_HOST=0.0.0.0:11435"' in text
        assert "0.0.0.0" not in text.split("ExecStart=")[1].split("ExecStop=")[0]

    @pytest.mark.parametrize(
        ("path", "resolved", "mount"),
        [
            ("/data/models", "/data/models", "source=/data/models,target=/data/models"),
            ("/data/models", "/big/models", "source=/big/models,target=/data/models"),
            # Root's link in the home leads to the same path in the container.
            ("/var/lib/ollama/models", "/big/models", "source=/big/models,target=/big/models"),
        ],
    )
    def test_shown_what_links_lead_to_now(self, path: str, resolved: str, mount: str) -> None:
        given = answers() | {
            LoggedJob: job(LoggedRun("inactive", "success", "pulled")),
            Places: lambda paths: {
                item: Place(item, resolved if item == path else item) for item in paths
            },
        }
        text = unit(planned(A, CONTAINER, given=given, **DOCKER, ollama_models_dir=path), "b")
        assert re.findall("type=bind,(.*) ", text)[:2] == [
            "source=/var/lib/ollama,target=/var/lib/ollama",
            mount,
        ]

    def test_is_tried_on_a_port_of_its_own(self, done: Plan) -> None:
        lines = done.step("gpu1", "Ollama | Try what changes").commands
        text = "\n".join(lines[2].connector_arguments["_stdin"])
        assert "--name ollama-b-trial " in text
        assert "--publish 10.0.0.11:11435:11435 " in text
        assert " ollama-models.service" not in text
        run = lines[3].get_raw_value()
        assert "llm-fleet-trial-ollama-b.service 60 /api/version ollama-b-trial ||" in run

    def test_published_port_is_opened_to_the_gateways_alone(self, done: Plan) -> None:
        ruleset = done.files("gpu1")["/etc/llm-fleet/firewall.nft"][0]
        published = ruleset.split("chain published")[1].split("chain closed")[0]
        assert re.findall(r"^\s*(.*accept.*)$", published, re.M) == [
            "ip saddr { 10.0.0.2/32 } meta l4proto tcp ct original proto-dst 11435 accept "
            'comment "ollama, from the gateways"'
        ]

    def test_release_is_not_fetched_where_nothing_runs_it(self) -> None:
        done = planned(CONTAINER, given=answers(), **DOCKER)
        assert "Ollama | Install Ollama 0.32.7" not in done.names("gpu1")


class TestPorts:
    def test_servers_that_change_places_are_stopped_first(self) -> None:
        """Or the first would be started where the other still listens."""
        held = (
            Listener(ip_address("10.0.0.11"), 11435, "1", "ollama", "ollama@a.service"),
            Listener(
                ip_address("10.0.0.11"), 11434, "2", "docker-proxy", "docker.service", "ollama-b"
            ),
            Listener(ip_address("127.0.0.1"), 11434, "3", "x", "x.service"),
        )
        given = answers() | {Listeners: lambda: held}
        done = planned(A, CONTAINER, given=given, **DOCKER)
        stops = [line.partition(" ) || {")[0] for line in done.step("gpu1", REMOVE).lines]
        assert stops == [f"( systemctl stop ollama@{name}.service" for name in "ab"]

    def test_servers_that_stay_go_on(self) -> None:
        held = tuple(
            Listener(ip_address("10.0.0.11"), port, "1", "ollama", f"ollama@{name}.service")
            for name, port in (("a", 11434), ("b", 11435))
        )
        assert REMOVE not in planned(A, B, given=answers() | {Listeners: lambda: held}).names(
            "gpu1"
        )


class TestRemoval:
    def left(self, *paths: str, running: tuple[str, ...] = ()) -> Answers:
        found = Servers(tuple(f"{FOLDER}/{path}" for path in paths), running)
        return answers() | {OllamaServers: lambda: found}

    def test_single_server_goes_before_the_first_instance_starts(self) -> None:
        given = self.left(
            "ollama.service",
            "multi-user.target.wants/ollama.service",
            "ollama.service.wants/ollama-models.service",
            running=("ollama.service",),
        )
        done = planned(A, B, given=given)
        stop, remove = done.step("gpu1", REMOVE).lines
        assert stop.startswith("( systemctl stop ollama.service && ")
        assert remove == (
            f"rm -f {FOLDER}/ollama.service {FOLDER}/multi-user.target.wants/ollama.service "
            f"{FOLDER}/ollama.service.wants/ollama-models.service && rmdir "
            f"{FOLDER}/ollama.service.wants --ignore-fail-on-non-empty && systemctl daemon-reload"
        )
        assert done.index("gpu1", "systemctl stop") < done.index(
            "gpu1", "systemctl restart ollama@a"
        )

    def test_what_is_declared_stays(self) -> None:
        given = self.left(
            "ollama@a.service",
            "multi-user.target.wants/ollama@a.service",
            "multi-user.target.wants/ollama-models.service",
            running=("ollama@a.service",),
        )
        assert REMOVE not in planned(A, given=given).names("gpu1")

    def test_instances_go_before_the_single_server_starts(self) -> None:
        given = self.left(
            "ollama@a.service",
            "multi-user.target.wants/ollama-models.service",
            running=("ollama@a.service", "ollama@z.service"),
        )
        lines = planned(given=given).step("gpu1", REMOVE).lines
        assert [line.split(" && ")[0] for line in lines[:2]] == [
            "( systemctl stop ollama@a.service",
            "( systemctl stop ollama@z.service",
        ]
        assert "ollama@a.service" in lines[2]
        assert "multi-user.target.wants/ollama-models.service" in lines[2]

    def test_somebody_elses_instances_are_refused(self) -> None:
        def foreign(patterns: list[str]) -> list[str]:
            there = f"{FOLDER}/ollama@.service.d/x.conf"
            return [there] if f"{FOLDER}/ollama@*.service.d/*" in patterns else []

        with pytest.raises(FleetError, match="somebody else's drop-ins would change how our Oll"):
            planned(A, given=answers() | {ForeignFiles: foreign})


def test_second_run_changes_nothing() -> None:
    """... of a single server that runs: the new facts are asked for, and nothing follows."""
    converged = in_declared_state("gpu only", from_bare("gpu only"))["gpu1"]
    single = Servers(
        (f"{FOLDER}/ollama.service", f"{FOLDER}/ollama.service.wants/ollama-models.service"),
        ("ollama.service",),
    )
    converged |= {OllamaServers: lambda: single, UnitState: lambda unit, files: RUNNING}
    assert plan({"gpu1": ("gpu", {})}, {"gpu1": converged}).names("gpu1") == []
