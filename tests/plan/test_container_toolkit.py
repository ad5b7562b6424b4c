"""The container toolkit's own steps."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.container_toolkit.facts import Cdi, CdiDevices
from fleet.container_toolkit.files import PACKAGES
from fleet.container_toolkit.paths import TOOLKIT_OWNED
from fleet.docker.facts import OwnedFile, OwnedText
from fleet.driver.facts import DrivenGpu, DrivenGpus, Gpu, GpuHardware, GpuHardwareFact
from fleet.kit.errors import FleetError
from fleet.kit.facts.apt import ExistingFiles, Installed, KeyringFingerprints, PackageVersions
from fleet.kit.facts.files import FileState, FileStates
from fleet.kit.facts.units import ABSENT, Unit, UnitState
from fleet.pins import DOCKER_KEY, TOOLKIT_KEY
from tests.plan.simulation import RUNNING, Answers, Plan, bare
from tests.plan.test_docker import after, planned

ONE = GpuHardware((Gpu("0000:17:00.0", 0x2330),))
PREFIX = "Container toolkit | "
INSTALL = f"{PREFIX}Install the toolkit 1.20.0-1"
RUNTIME = f"{PREFIX}Set the runtime nvidia"
CDI = f"{PREFIX}Provide the GPUs by CDI"


def own(plan: Plan) -> list[str]:
    return [name for name in plan.names("box") if name.startswith(PREFIX)]


def with_gpu(machine: str = "x86_64") -> Answers:
    return bare(machine=machine) | {GpuHardwareFact: lambda: ONE}


def test_each_unit_is_judged_by_the_same_files_everywhere() -> None:
    """What it was started with is noted by unit: of two lists, each run would miss the other's."""
    asked: dict[str, set[tuple[str, ...]]] = {}

    def state(unit: str, files: list[str], *, reloaded: bool = False) -> Unit:
        if files and not reloaded:
            asked.setdefault(unit, set()).add(tuple(files))
        return ABSENT

    planned(with_gpu() | {UnitState: state})
    assert "docker.service" in asked
    assert {unit: lists for unit, lists in asked.items() if len(lists) > 1} == {}


@pytest.fixture
def answers() -> Answers:
    """A converged host with a GPU and its driver."""
    first = planned(with_gpu())
    answers = after(first)
    docker = answers[PackageVersions]
    toolkit = {name: Installed("1.20.0-1", held=True) for name in PACKAGES}
    return answers | {
        GpuHardwareFact: lambda: ONE,
        KeyringFingerprints: lambda path: (DOCKER_KEY if "docker" in path else TOOLKIT_KEY,),
        PackageVersions: lambda packages: (
            docker(packages) | {name: p for name, p in toolkit.items() if name in packages}
        ),
        CdiDevices: lambda: Cdi(("nvidia.com/gpu=0", "nvidia.com/gpu=all"), True),
    }


def test_from_bare() -> None:
    assert own(planned(with_gpu())) == [
        f"{PREFIX}Install tools",
        f"{PREFIX}Trust NVIDIA's repository",
        INSTALL,
        f"{PREFIX}Count any driver's module",
        f"{PREFIX}Describe the GPUs at boot",
        f"{PREFIX}Watch the driver",
        f"{PREFIX}Run Docker as configured",
    ]


def test_second_run_plans_nothing(answers: Answers) -> None:
    assert planned(answers).order == []


@pytest.mark.parametrize(
    ("gpus", "data"),
    [(GpuHardware(), {}), (ONE, {"toolkit_enabled": False})],
    ids=["no GPU on the bus", "switched off"],
)
def test_nothing_without_gpu_or_declaration(gpus: GpuHardware, data: dict[str, Any]) -> None:
    assert own(planned(bare() | {GpuHardwareFact: lambda: gpus}, **data)) == []


def test_all_four_at_one_version_and_held() -> None:
    lines = planned(with_gpu()).step("box", INSTALL).lines
    for name in PACKAGES:
        assert f" {name}=1.20.0-1" in lines[2]
    assert lines[-1] == f"sh -s -- 600 apt-mark hold {' '.join(PACKAGES)}"


@pytest.mark.parametrize("name", PACKAGES)
def test_one_of_another_version_is_replaced(answers: Answers, name: str) -> None:
    before = answers[PackageVersions]
    answers[PackageVersions] = lambda packages: (
        before(packages) | ({name: Installed("1.19.0-1", held=True)} if name in packages else {})
    )
    assert planned(answers).names("box") == [INSTALL]


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_flat_repository_of_the_architecture(machine: str, arch: str) -> None:
    files = planned(with_gpu(machine)).files("box")
    text, _ = files["/etc/apt/sources.list.d/llm-fleet-nvidia-container-toolkit.sources"]
    assert f"URIs: https://nvidia.github.io/libnvidia-container/stable/deb/{arch}\n" in text
    assert "Suites: /\nSigned-By:" in text


def test_other_architecture_is_refused() -> None:
    with pytest.raises(FleetError, match=r"riscv64; set toolkit_enabled = False"):
        planned(with_gpu("riscv64"))


def test_lists_without_a_key_are_removed(answers: Answers) -> None:
    old = [
        "/etc/apt/sources.list.d/libnvidia-container.list",
        "/etc/apt/sources.list.d/nvidia-docker.list",
    ]
    answers[ExistingFiles] = lambda paths: [path for path in paths if path in old]
    assert planned(answers).lines("box") == [f"rm -f {' '.join(old)}"]


class TestCdi:
    def test_any_drivers_module_counts(self) -> None:
        """The toolkit's own condition does not know Debian's nvidia-current-open.ko."""
        path = "/etc/systemd/system/nvidia-cdi-refresh.service.d/llm-fleet.conf"
        text, _ = planned(with_gpu()).files("box")[path]
        conditions = [line for line in text.splitlines() if line.startswith("ExecCondition")]
        assert conditions == [
            "ExecCondition=",  # what the unit itself has is taken away
            "ExecCondition=/usr/bin/test -e /sys/module/nvidia/version",
        ]

    def test_described_when_it_is_not(self, answers: Answers) -> None:
        answers[CdiDevices] = lambda: Cdi((), True)
        steps = planned(answers)
        assert steps.names("box") == [CDI]
        [line] = steps.lines("box")
        assert "systemctl restart nvidia-cdi-refresh.service && nvidia-ctk cdi list" in line
        assert "journalctl" in line

    @pytest.mark.parametrize(
        ("names", "steps"),
        [
            (("0", "all", "GPU-1"), []),
            (("0:0", "0:1", "all", "MIG-1", "MIG-2"), []),  # divided
            (("0", "all", "GPU-2"), [CDI]),  # a file from another host
            (("0", "all"), [CDI]),  # made by hand
        ],
    )
    def test_description_is_of_these_gpus(
        self, answers: Answers, names: tuple[str, ...], steps: list[str]
    ) -> None:
        answers[CdiDevices] = lambda: Cdi(tuple(f"nvidia.com/gpu={name}" for name in names), True)
        answers[DrivenGpus] = lambda: (DrivenGpu(0, "GPU-1", "NVIDIA H100"),)
        assert planned(answers).names("box") == steps

    def test_without_a_driver_there_is_nothing_to_describe(self, answers: Answers) -> None:
        """The unit does it at the boot that loads the driver; the compliance check says so."""
        answers[CdiDevices] = lambda: Cdi((), False)
        assert planned(answers).order == []


class TestRuntime:
    def test_not_registered_unless_declared(self) -> None:
        lines = planned(with_gpu()).lines("box")
        assert not [line for line in lines if "runtime configure" in line]

    def test_registered_in_the_stage_and_judged(self, answers: Answers) -> None:
        steps = planned(answers, toolkit_runtime=True)
        assert steps.names("box") == [RUNTIME]
        record, line = steps.lines("box")[-3], steps.lines("box")[-1]
        assert record.endswith("/etc/llm-fleet/toolkit-owned.json")
        parts = ["runtime configure --runtime=docker --config=daemon.json", "--validate", "mv -f"]
        assert sorted(parts, key=line.index) == parts

    def test_registered_once(self, answers: Answers) -> None:
        answers[OwnedFile] = self.registered(answers, '{"paths": [["runtimes", "nvidia"]]}')
        assert planned(answers, toolkit_runtime=True).order == []

    def test_declared_no_more_it_goes(self, answers: Answers) -> None:
        answers[OwnedFile] = self.registered(answers, '{"paths": [["runtimes", "nvidia"]]}')
        states = answers[FileStates]
        answers[FileStates] = lambda paths: {
            path: state for path, state in states(paths).items() if "daemon" not in path
        }
        steps = planned(answers)
        assert steps.names("box") == [RUNTIME]
        assert "nvidia" not in steps.files("box")["/etc/docker/daemon.json"][0]

    def test_an_operators_own_stays(self, answers: Answers) -> None:
        answers[OwnedFile] = self.registered(answers, "")
        assert planned(answers).order == []

    @staticmethod
    def registered(answers: Answers, record: str) -> Any:
        """daemon.json with the runtime in it, as nvidia-ctk leaves it."""
        before = answers[OwnedFile]

        def owned(path: str, record_path: str) -> OwnedText:
            return before(path, record_path)

        def with_runtime(path: str, **arguments: str) -> OwnedText:
            text, docker_record = owned(path, arguments["record"])
            runtime = ' "runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}},'
            text = text.replace("{", "{" + runtime, 1)
            is_docker = "docker-owned" in arguments["record"]
            return OwnedText(text, docker_record if is_docker else record)

        return with_runtime


def test_docker_learns_of_it_whichever_run_changed_the_file(answers: Answers) -> None:
    asked = []

    def state(unit: str, files: list[str]) -> Any:
        asked.append((unit, tuple(files)))
        return RUNNING

    answers[UnitState] = state
    planned(answers)
    unit, files = asked[-1]
    assert unit == "docker.service"
    assert "/etc/docker/daemon.json" in files


def test_the_runtime_that_we_registered_goes_when_the_toolkit_is_switched_off() -> None:
    """By a restart of Docker in the same deploy: the next one has nothing to do."""
    before = '{"runtimes": {"nvidia": {"path": "nvidia-container-runtime"}}, "bip": "10.9.0.1/24"}'
    owned = '{"paths": [["runtimes", "nvidia"]]}'
    answers = with_gpu()
    answers[OwnedFile] = lambda path, record: OwnedText(
        before, owned if record == TOOLKIT_OWNED else ""
    )
    state = FileState("", "644", "root", "root")
    answers[FileStates] = lambda paths: dict.fromkeys({*paths} & {TOOLKIT_OWNED}, state)
    done = planned(answers, toolkit_enabled=False)
    assert own(done) == [
        f"{PREFIX}Take the runtime nvidia back",
        f"{PREFIX}Run Docker as configured",
    ]
    text, _ = done.files("box")["/etc/docker/daemon.json"]
    assert "nvidia" not in text
    assert "10.9.0.1/24" in text
