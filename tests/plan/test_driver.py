"""The driver's own steps: for every distribution and GPU, from bare and from each broken state."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from gevent.lock import BoundedSemaphore
from pyinfra.api import FunctionCommand
from pyinfra.connectors.util import CommandOutput, OutputLine
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import File
from pyinfra.facts.server import LinuxDistribution

from fleet import pins
from fleet.driver import operations
from fleet.driver.facts import DriverState, DriverStateFact, Gpu, GpuHardware, GpuHardwareFact
from fleet.kit.facts.apt import ExistingFiles, KeyringFingerprints
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.jobs import Job, LoggedJob
from fleet.kit.facts.units import ABSENT, UnitState
from fleet.platform.preflight import SUPPORTED
from tests.plan.simulation import RUNNING, Answers, Plan, bare, plan

RELEASES = [(name, release) for name, releases in SUPPORTED.items() for release in releases]
H100 = GpuHardware((Gpu("0000:17:00.0", 0x2330),))
HGX = GpuHardware(tuple(Gpu(f"0000:{i:02x}:00.0", 0x2330) for i in range(8)), nvswitches=4)
T4 = GpuHardware((Gpu("0000:17:00.0", 0x1EB8),))
PASCAL = GpuHardware((Gpu("0000:17:00.0", 0x15F8),))
MIXED = GpuHardware((*PASCAL.gpus, Gpu("0000:65:00.0", 0x1EB8)))
BLACKWELL = GpuHardware((Gpu("0000:17:00.0", 0x2B85),))
KERNEL = "6.12.94+deb13-amd64"
REQUIRE = "Driver | Require what Ollama needs"
TRUST = "Driver | Trust NVIDIA's repository"
CURRENT = DriverState(
    kernel=KERNEL,
    headers=True,
    loaded="595.91.07",
    flavor="open",
    installed="595.91.07",
    installed_flavor="open",
    held=frozenset({"nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"}),
)


@pytest.fixture(autouse=True)
def _nobody_is_lost() -> Iterator[None]:
    operations._LOST.clear()
    yield
    operations._LOST.clear()


def planned(answers: Answers | None = None, hardware: GpuHardware = H100, **settings: Any) -> Plan:
    base = (answers or bare()) | {GpuHardwareFact: lambda: hardware}
    return plan({"gpu1": ("gpu", settings)}, {"gpu1": base})


def install_words(done: Plan) -> list[str]:
    [line] = [
        line for line in done.lines("gpu1") if "driver_install.py" in line and "systemd-run" in line
    ]
    return shlex.split(line.split("driver_install.py ")[1].removesuffix("; }"))


def options(done: Plan, name: str) -> list[str]:
    words = install_words(done)
    return [value for option, value in itertools.pairwise(words) if option == name]


def driver_names(done: Plan) -> list[str]:
    return [name for name in done.names("gpu1") if name.startswith("Driver")]


def converged(state: DriverState = CURRENT, **packages: str) -> Answers:
    """A Debian 13 host with an H100 whose driver is as declared."""
    first = planned()
    files = {path: state for path, (_, state) in first.files("gpu1").items()}
    names = [*options(first, "--package"), *options(first, "--pinning"), "nftables", "curl"]
    names += ["ca-certificates", "gpg", "python3", "zstd"]
    installed = {name: ["595.91.07-1"] for name in names} | {k: [v] for k, v in packages.items()}
    return bare() | {
        FileStates: lambda paths: {path: files[path] for path in paths if path in files},
        DebPackages: lambda: installed,
        DriverStateFact: lambda nouveau_conf: state,
        KeyringFingerprints: lambda path: (pins.NVIDIA_FINGERPRINTS["debian13"],),
        UnitState: lambda unit, files: RUNNING,
    }


class TestNothingToDo:
    def test_no_gpu_on_the_bus(self) -> None:
        assert driver_names(planned(hardware=GpuHardware())) == []

    def test_somebody_elses_driver(self) -> None:
        assert driver_names(planned(converged(), driver_source="none")) == []

    def test_device_nodes_of_somebody_elses_driver_are_made_all_the_same(self) -> None:
        """A hardened Ollama cannot have nvidia-modprobe make them after a boot."""
        fresh = converged() | {FileStates: lambda paths: {}, UnitState: lambda unit, files: ABSENT}
        assert driver_names(planned(fresh, driver_source="none")) == [
            "Driver | Install the program of the device nodes",
            "Driver | Install the unit of the device nodes",
            "Driver | Make the device nodes",
        ]

    def test_converged(self) -> None:
        assert driver_names(planned(converged())) == []

    def test_gateway_with_a_gpu_of_its_own(self) -> None:
        """Only the group gpu is for models."""
        hosts = {
            "gpu1": ("gpu", {"private_address": "10.0.0.1", "ollama_listen": "private"}),
            "edge": ("gateway", {"private_address": "10.0.0.2", "gateway_keys": ["a"]}),
        }
        answers = bare() | {GpuHardwareFact: lambda: H100}
        done = plan(hosts, {"gpu1": bare(), "edge": answers})
        assert not [name for name in done.names("edge") if name.startswith("Driver")]


DEBIAN = ("nvidia-driver-cuda", "{}", "nvidia-persistenced")
UBUNTU = ("libnvidia-compute-580", "nvidia-utils-580", "{}", "nvidia-compute-utils-580")
UNSUFFIXED = ("libnvidia-compute", "nvidia-utils", "{}", "nvidia-persistenced")
NATIVE_DEBIAN = ("{}", "nvidia-smi", "libcuda1", "nvidia-persistenced")
NATIVE_UBUNTU = (
    "{}",
    "libnvidia-compute-580-server",
    "nvidia-utils-580-server",
    "nvidia-compute-utils-580-server",
)


# NVIDIA's repositories of these have no 580.
BRANCHES = {("debian", "13"): 595, ("ubuntu", "26.04"): 595}


class TestPackages:
    # Source, platform, hardware, the set, and the package of the modules in it.
    CASES: ClassVar[list[tuple[str, tuple[str, str], GpuHardware, tuple[str, ...], str]]] = [
        *(
            ("nvidia", ("debian", release), hardware, DEBIAN, "nvidia-kernel-open-dkms")
            for release in ("12", "13")
            for hardware in (H100, HGX, T4, BLACKWELL)
        ),
        ("nvidia", ("debian", "12"), PASCAL, DEBIAN, "nvidia-kernel-dkms"),
        ("nvidia", ("debian", "12"), MIXED, DEBIAN, "nvidia-kernel-dkms"),
        ("nvidia", ("ubuntu", "26.04"), H100, UNSUFFIXED, "nvidia-dkms-open"),
        *(
            ("nvidia", ("ubuntu", release), hardware, UBUNTU, module)
            for release in ("22.04", "24.04")
            for hardware, module in (
                (H100, "nvidia-dkms-580-open"),
                (HGX, "nvidia-dkms-580-open"),
                (T4, "nvidia-dkms-580-open"),
                (PASCAL, "nvidia-dkms-580"),
                (MIXED, "nvidia-dkms-580"),
            )
        ),
        ("distribution", ("debian", "13"), T4, NATIVE_DEBIAN, "nvidia-open-kernel-dkms"),
        *(
            ("distribution", ("ubuntu", release), hardware, NATIVE_UBUNTU, module)
            for release in ("22.04", "24.04", "26.04")
            for hardware, module in (
                (H100, "nvidia-dkms-580-server-open"),
                (PASCAL, "nvidia-dkms-580-server"),
            )
        ),
    ]

    @pytest.mark.parametrize(("source", "platform", "hardware", "names", "module"), CASES)
    def test_headless_set(
        self,
        source: str,
        platform: tuple[str, str],
        hardware: GpuHardware,
        names: tuple[str, ...],
        module: str,
    ) -> None:
        done = planned(bare(*platform), hardware, driver_source=source)
        assert options(done, "--package") == [name.format(module) for name in names]
        assert "--dkms" in install_words(done)
        assert "--hold" in install_words(done)
        assert options(done, "--pinning") == (
            [f"nvidia-driver-pinning-{BRANCHES.get(platform, 580)}"] if source == "nvidia" else []
        )

    def test_ubuntu_from_590_on(self) -> None:
        done = planned(bare("ubuntu", "24.04"), driver_branch=595)
        assert options(done, "--package") == [n.format("nvidia-dkms-open") for n in UNSUFFIXED]
        assert options(done, "--pinning") == ["nvidia-driver-pinning-595"]

    @pytest.mark.parametrize(("distribution", "release"), RELEASES)
    def test_fabric_manager_on_nvswitches_only(self, distribution: str, release: str) -> None:
        done = planned(bare(distribution, release), HGX)
        assert options(done, "--fabric") == ["nvidia-fabricmanager", "libnvidia-nscq"]
        assert "Driver | Run the fabric manager" in driver_names(done)
        alone = planned(bare(distribution, release), H100)
        assert options(alone, "--fabric") == []
        assert not [name for name in driver_names(alone) if "fabric" in name]

    def test_running_fabric_manager_is_left_alone(self) -> None:
        """A restart ends CUDA jobs: neither our script's nor the drop-in's change asks for one."""
        text, _ = planned(bare(), HGX).files("gpu1")[
            "/etc/systemd/system/nvidia-fabricmanager.service.d/llm-fleet.conf"
        ]
        assert "\nWants=llm-fleet-gpu-devices.service\nAfter=llm-fleet-gpu-devices.service" in text
        assert not [line for line in text.splitlines() if line.startswith("Requires")]
        changed = {"nvidia-fabricmanager.service": replace(RUNNING, newest_file=200.0)}
        state = converged() | {
            UnitState: lambda unit, files: changed.get(unit, RUNNING) if files else RUNNING
        }
        assert not [
            line
            for line in planned(state, HGX).lines("gpu1")
            if "restart nvidia-fabricmanager" in line
        ]

    def test_ubuntus_own_fabric_manager(self) -> None:
        done = planned(bare("ubuntu", "24.04"), HGX, driver_source="distribution")
        assert options(done, "--fabric") == ["nvidia-fabricmanager-580", "libnvidia-nscq-580"]

    def test_signed_modules_under_secure_boot(self) -> None:
        """The running kernel's, and what brings those of the kernels that its series gets."""
        answers = bare("ubuntu", "24.04") | {
            DriverStateFact: lambda nouveau_conf: DriverState("6.17.0-14-generic"),
            DebPackages: lambda: {
                "linux-image-generic": ["1"],
                "linux-image-generic-hwe-24.04": ["1"],
            },
        }
        done = planned(answers, replace(H100, secure_boot=True), driver_source="distribution")
        assert options(done, "--package")[:3] == [
            "linux-modules-nvidia-580-server-open-6.17.0-14-generic",
            "linux-modules-nvidia-580-server-open-generic-hwe-24.04",
            "nvidia-headless-no-dkms-580-server-open",
        ]
        assert "--dkms" not in install_words(done)

    def test_one_version(self) -> None:
        done = planned(driver_version="595.71.05")
        assert options(done, "--pinning") == ["nvidia-driver-pinning-595.71.05"]
        text, _ = done.files("gpu1")["/etc/apt/preferences.d/llm-fleet-nvidia"]
        assert "Pin: version 595.71.05*\nPin-Priority: 1001" in text

    def test_stays_with_what_is_there_unless_a_version_is_declared(self) -> None:
        assert options(planned(), "--stay") == ["595"]
        assert options(planned(driver_version="595.71.05"), "--stay") == []

    @pytest.mark.parametrize("source", ["nvidia", "distribution"])
    def test_installer_has_its_python(self, source: str) -> None:
        """A bare Debian has none."""
        done = planned(driver_source=source, hardware=T4)
        python = done.index("gpu1", r"apt-get .* install .*\bpython3\b")
        assert python < done.index("gpu1", "/usr/bin/python3")

    def test_not_held(self) -> None:
        assert "--hold" not in install_words(planned(driver_hold=False))


class TestRepository:
    @pytest.mark.parametrize(("distribution", "release"), RELEASES)
    @pytest.mark.parametrize(("machine", "arch"), [("x86_64", "x86_64"), ("aarch64", "sbsa")])
    def test_key_and_source(self, distribution: str, release: str, machine: str, arch: str) -> None:
        done = planned(bare(distribution, release, machine))
        name = f"{distribution}{release.replace('.', '')}"
        text, state = done.files("gpu1")["/etc/apt/sources.list.d/llm-fleet-nvidia.sources"]
        base = f"https://developer.download.nvidia.com/compute/cuda/repos/{name}/{arch}"
        assert f"URIs: {base}\nSuites: /\n" in text
        assert "Signed-By: /etc/apt/keyrings/llm-fleet-nvidia.gpg" in text
        assert state.mode == "644"
        _, fetch, check, export, *_ = done.step("gpu1", TRUST).lines
        fingerprint = pins.NVIDIA_FINGERPRINTS[name]
        keys = {"debian13": "8793F200", "ubuntu2604": "60DF8A40"}
        key = f"{base}/{keys.get(name, '3bf863cc')}.pub"
        assert f"download-file {key} " in fetch
        assert f"grep -qx {fingerprint} || " in check
        assert f"--export {fingerprint} " in export

    def test_pin_comes_before_the_source_and_the_source_before_the_driver(self) -> None:
        names = driver_names(planned())
        assert names == [
            "Driver | Keep nouveau and unattended upgrades away",
            "Driver | Install tools",
            "Driver | Pin the branch",
            TRUST,
            "Driver | Install the programs",
            "Driver | Install driver 595 (open modules)",
            "Driver | Install the unit of the device nodes",
            "Driver | Install the persistence daemon's unit",
            "Driver | Make the device nodes",
            "Driver | Run the persistence daemon",
            REQUIRE,
        ]

    def test_repository_gives_the_branch_and_nothing_else(self) -> None:
        text, _ = planned().files("gpu1")["/etc/apt/preferences.d/llm-fleet-nvidia"]
        assert "Pin: version 595.*\nPin-Priority: 1001" in text
        assert text.endswith("Package: *\nPin: release l=NVIDIA CUDA\nPin-Priority: -1\n")
        [patterns] = [
            line for line in text.splitlines() if line.startswith("Package: nvidia-driver*")
        ]
        # The container toolkit has a repository and versions of its own.
        assert "container" not in patterns
        assert "libnvidia-*" not in patterns
        assert " nvidia-* " not in patterns

    def test_other_key_is_replaced(self) -> None:
        answers = converged() | {KeyringFingerprints: lambda path: ("F" * 40,)}
        assert driver_names(planned(answers)) == [TRUST]

    def test_what_cuda_keyring_brought_goes(self) -> None:
        """Two sources of one repository with two keyrings: apt would refuse both."""
        answers = converged() | {ExistingFiles: lambda paths: paths}
        done = planned(answers)
        assert driver_names(done) == [TRUST]
        assert done.step("gpu1", TRUST).lines == [
            "rm -f /etc/apt/sources.list.d/cuda-debian13-x86_64.list"
        ]

    def test_distributions_own_driver_leaves_no_repository_of_ours(self) -> None:
        there = {"mode": 644, "user": "root", "group": "root"}
        answers = bare() | {File: lambda path: there, ExistingFiles: lambda paths: paths}
        done = planned(answers, T4, driver_source="distribution")
        assert done.step("gpu1", "Driver | Forget NVIDIA's repository").lines == [
            "rm -f /etc/apt/sources.list.d/llm-fleet-nvidia.sources "
            "/etc/apt/keyrings/llm-fleet-nvidia.gpg"
        ]
        assert "rm -f /etc/apt/preferences.d/llm-fleet-nvidia" in done.lines("gpu1")


class TestRefusals:
    @pytest.mark.parametrize(
        ("hardware", "settings", "words"),
        [
            (replace(H100, secure_boot=True), {}, "Secure Boot is on"),
            (PASCAL, {}, "install Debian 12 or Ubuntu on this host"),
            (H100, {"driver_branch": 580}, "Debian 13 begins with branch 590"),
            (replace(H100, nvlink5=True), {}, "nvlsm"),
        ],
    )
    def test_host_fails_alone_and_unharmed(
        self, hardware: GpuHardware, settings: dict[str, Any], words: str
    ) -> None:
        done = planned(hardware=hardware, **settings)
        assert driver_names(done) == ["Driver | Refuse what cannot work"]
        [line] = done.step("gpu1", "Driver | Refuse what cannot work").lines
        assert words in line
        assert line.endswith(">&2; exit 1")


class TestFloor:
    """Whoever brought the driver: Ollama goes silently to the CPU with one that is too old."""

    @pytest.mark.parametrize("source", ["nvidia", "none"])
    @pytest.mark.parametrize(
        ("hardware", "loaded", "words"),
        [
            (H100, "", "no NVIDIA driver is loaded"),
            (H100, "535.274.02", "driver 535.274.02 is loaded, and Ollama needs 550 or newer"),
            (PASCAL, "565.57.01", "Ollama needs 570 or newer"),
            (MIXED, "565.57.01", "Ollama needs 570 or newer"),
        ],
    )
    def test_too_old_or_none(
        self, source: str, hardware: GpuHardware, loaded: str, words: str
    ) -> None:
        # The same module lies on the disk: no reboot would bring a newer one. Debian 12 has a
        # branch for the old GPUs too.
        answers = converged(replace(CURRENT, loaded=loaded, installed=loaded))
        answers[LinuxDistribution] = bare("debian", "12")[LinuxDistribution]
        done = planned(answers, hardware, driver_source=source)
        [line] = done.step("gpu1", REQUIRE).lines
        said = shlex.split(line)[2]
        assert words in said
        assert ("driver_source = 'nvidia'" in said) is (source == "none")
        assert line.endswith(">&2; exit 1")

    @pytest.mark.parametrize(("hardware", "loaded"), [(H100, "550.163.01"), (PASCAL, "570.86.15")])
    def test_just_new_enough(self, hardware: GpuHardware, loaded: str) -> None:
        answers = converged(replace(CURRENT, loaded=loaded, installed=loaded))
        assert driver_names(planned(answers, hardware, driver_source="none")) == []

    def test_one_that_waits_for_its_operators_reboot(self) -> None:
        state = replace(CURRENT, loaded="535.274.02")
        done = planned(converged(state), driver_reboot="never")
        assert REQUIRE not in driver_names(done)

    def test_host_on_the_cpu_by_declaration_needs_none(self) -> None:
        servers = [{"name": "cpu", "port": 11434, "gpus": []}]
        answers = converged(replace(CURRENT, loaded="", installed=""))
        done = planned(answers, driver_source="none", ollama_instances=servers)
        assert driver_names(done) == []


class TestInstalledState:
    """Each way in which a host can differ from what is declared leads to an installation."""

    @pytest.mark.parametrize(
        ("state", "settings"),
        [
            (replace(CURRENT, installed=""), {}),  # the kernel is newer than the module
            (replace(CURRENT, installed="590.48.01", loaded="590.48.01"), {}),
            (CURRENT, {"driver_version": "595.71.05"}),
            (replace(CURRENT, stale_initramfs=True), {}),
            (replace(CURRENT, held=frozenset({"nvidia-driver-cuda"})), {}),
            (CURRENT, {"driver_hold": False}),
            (CURRENT, {"driver_modules": "proprietary"}),
        ],
        ids=["kernel", "branch", "version", "initramfs", "hold", "unhold", "modules"],
    )
    def test_is_installed_again(self, state: DriverState, settings: dict[str, Any]) -> None:
        done = planned(converged(state), **settings)
        assert [name for name in driver_names(done) if "Install driver" in name]

    def test_holds_of_others_are_left(self) -> None:
        state = replace(CURRENT, held=CURRENT.held | {"postgresql"})
        assert driver_names(planned(converged(state))) == []

    def test_fabric_manager_of_another_version(self) -> None:
        held = CURRENT.held | {"nvidia-fabricmanager", "libnvidia-nscq"}
        fabric = {"nvidia-fabricmanager": "595.71.05-1", "libnvidia-nscq": "595.91.07-1"}
        answers = converged(replace(CURRENT, held=held), **fabric)
        assert "Driver | Install driver 595 (open modules)" in driver_names(planned(answers, HGX))
        same = dict.fromkeys(fabric, "595.91.07-1")
        answers = converged(replace(CURRENT, held=held), **same)
        assert not [n for n in driver_names(planned(answers, HGX)) if "Install driver" in n]

    def test_failed_installation_shows_the_journal_and_fails(self) -> None:
        answers = bare() | {LoggedJob: lambda unit: Job("failed", "exit-code", ("why",))}
        lines = planned(answers).step("gpu1", "Driver | Install driver 595 (open modules)").lines
        assert "journalctl" in lines[-1]
        assert "llm-fleet-driver-install.service" in lines[-1]
        assert lines[-1].endswith("exit 1; }")


class TestReboot:
    OTHER = replace(CURRENT, loaded="595.71.05")
    NOUVEAU = replace(CURRENT, loaded="", nouveau=True)

    FLAVOR = replace(CURRENT, flavor="proprietary")

    @pytest.mark.parametrize(
        "state", [OTHER, NOUVEAU, FLAVOR], ids=["other module", "nouveau", "other flavor"]
    )
    def test_state_alone_decides(self, state: DriverState) -> None:
        """Nothing is changed by this run: it was a former one that was cut short."""
        done = planned(converged(state))
        assert driver_names(done) == ["Driver | Reboot into the driver"]
        reboot, wait, judge = done.step("gpu1", "Driver | Reboot into the driver").commands
        assert "systemctl reboot" in str(reboot)
        assert isinstance(wait, FunctionCommand)
        assert wait.args == ("boot", 900.0)
        assert isinstance(judge, FunctionCommand)

    def test_module_that_is_not_loaded_needs_none(self) -> None:
        state = replace(CURRENT, loaded="")
        assert "Driver | Reboot into the driver" not in driver_names(planned(converged(state)))

    def test_never(self, caplog: pytest.LogCaptureFixture) -> None:
        done = planned(converged(self.OTHER), driver_reboot="never")
        assert driver_names(done) == []
        assert (
            "driver 595.91.07 is installed, 595.71.05 is still loaded; reboot this host yourself"
            in caplog.text
        )

    def test_services_wait_for_the_operators_reboot(self) -> None:
        answers = converged(self.NOUVEAU)
        answers[UnitState] = lambda unit, files: replace(RUNNING, active_state="inactive")
        done = planned(answers, driver_reboot="never")
        assert not [n for n in driver_names(done) if "nodes" in n or "persistence" in n]

    @pytest.mark.parametrize(("policy", "taken"), [("one-at-a-time", True), ("together", False)])
    def test_turn_is_held_while_a_host_is_away(
        self, monkeypatch: pytest.MonkeyPatch, policy: str, taken: bool
    ) -> None:
        """... and given back before the next host's."""
        turn = BoundedSemaphore(1)
        monkeypatch.setattr(operations, "_TURN", turn)
        with operations._turn(policy == "one-at-a-time"):
            assert turn.locked() is taken
        assert not turn.locked()

    def test_nobody_follows_a_host_that_was_lost(self) -> None:
        operations._LOST.append("gpu0")
        [line] = (
            planned(converged(self.OTHER)).step("gpu1", "Driver | Reboot into the driver").lines
        )
        assert "gpu0 did not come back" in line
        assert "exit 1" in line

    def test_together_does_not_ask(self) -> None:
        operations._LOST.append("gpu0")
        done = planned(converged(self.OTHER), driver_reboot="together")
        assert "systemctl reboot" in done.step("gpu1", "Driver | Reboot into the driver").lines[0]


class Machine:
    """A host that reboots: each look at it shows the next of its boots; None is no answer."""

    name = "gpu1"

    def __init__(self, *boots: str | None) -> None:
        self.boots = list(boots)
        self.connected = False
        self.sessions = 0
        self.said: list[str] = []
        self.driver = CURRENT

    def disconnect(self) -> None:
        self.connected = False

    def connect(self, *, show_errors: bool) -> None:
        self.connected = True
        self.sessions += 1

    def run_shell_command(self, command: str) -> tuple[bool, CommandOutput]:
        boot = self.boots.pop(0) if len(self.boots) > 1 else self.boots[0]
        if boot is None:
            raise OSError("Socket is closed")
        return True, CommandOutput([OutputLine("stdout", boot)])

    def get_fact(self, fact: type, **arguments: str) -> DriverState:
        return self.driver

    def log(self, message: str, log_func: object) -> None:
        self.said.append(message)


class TestWaitForBoot:
    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(operations.gevent, "sleep", lambda _: None)

    def test_the_boot_before_is_not_taken_for_the_next(self) -> None:
        """... nor is a session that ends in the middle of the answer an error."""
        machine = Machine("old", "old", None, "new")
        assert operations.wait_for_boot(None, machine, "old", 60.0)  # type: ignore[arg-type]
        assert machine.sessions == 4
        assert operations._LOST == []

    def test_lost(self) -> None:
        machine = Machine("old")
        assert not operations.wait_for_boot(None, machine, "old", 0.05)  # type: ignore[arg-type]
        assert operations._LOST == ["gpu1"]
        assert machine.said == ["gpu1 did not come back within 0 s; look at its console"]


class TestJudgeBoot:
    """After a reboot of ours: without it a host could be rebooted at every deploy."""

    @pytest.mark.parametrize(
        ("state", "words"),
        [
            (CURRENT, ""),
            (replace(CURRENT, loaded=""), ""),  # the device nodes' unit says why
            (replace(CURRENT, loaded="", nouveau=True), "nouveau holds the GPU"),
            (replace(CURRENT, loaded="595.71.05"), "595.71.05 is still loaded, but that was just"),
            (
                replace(CURRENT, installed="", loaded="", kernel="7.0"),
                "kernel 7.0, which has no mo",
            ),
        ],
    )
    def test_what_is_in_the_way_is_said(self, state: DriverState, words: str) -> None:
        machine = Machine("new")
        machine.driver = state
        assert operations.judge_boot(None, machine) is (not words)  # type: ignore[arg-type]
        assert [words in line for line in machine.said] == ([True] if words else [])
