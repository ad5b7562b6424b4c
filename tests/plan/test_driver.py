"""The driver's own steps, from bare and from each broken state."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
from pyinfra.facts.server import LinuxDistribution

from fleet.driver.facts import DriverState, GpuHardware, GpuHardwareFact, Module
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.jobs import LoggedJob, LoggedRun
from fleet.kit.facts.units import ABSENT, UnitState
from tests.plan.driver_hosts import (
    CURRENT,
    H100,
    HGX,
    MIXED,
    PASCAL,
    REQUIRE,
    converged,
    driver_names,
    planned,
)
from tests.plan.simulation import bare, plan


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
            (H100, None, "no NVIDIA driver is loaded"),
            (H100, "535.274.02", "driver 535.274.02 is loaded, and Ollama needs 550 or newer"),
            (PASCAL, "565.57.01", "Ollama needs 570 or newer"),
            (MIXED, "565.57.01", "Ollama needs 570 or newer"),
        ],
    )
    def test_too_old_or_none(
        self, source: str, hardware: GpuHardware, loaded: str | None, words: str
    ) -> None:
        # The same module lies on the disk: no reboot would bring a newer one. Debian 12 has a
        # branch for the old GPUs too.
        module = Module(loaded, "open") if loaded else None
        answers = converged(replace(CURRENT, loaded=module, installed=module))
        answers[LinuxDistribution] = bare("debian", "12")[LinuxDistribution]
        done = planned(answers, hardware, driver_source=source)
        [line] = done.step("gpu1", REQUIRE).lines
        said = shlex.split(line)[2]
        assert words in said
        assert ("driver_source = 'nvidia'" in said) is (source == "none")
        assert line.endswith(">&2; exit 1")

    @pytest.mark.parametrize(("hardware", "loaded"), [(H100, "550.163.01"), (PASCAL, "570.86.15")])
    def test_just_new_enough(self, hardware: GpuHardware, loaded: str) -> None:
        module = Module(loaded, "open")
        answers = converged(replace(CURRENT, loaded=module, installed=module))
        assert driver_names(planned(answers, hardware, driver_source="none")) == []

    def test_one_that_waits_for_its_operators_reboot(self) -> None:
        state = replace(CURRENT, loaded=Module("535.274.02", "open"))
        done = planned(converged(state), driver_reboot="never")
        assert REQUIRE not in driver_names(done)

    def test_host_on_the_cpu_by_declaration_needs_none(self) -> None:
        servers = [{"name": "cpu", "port": 11434, "gpus": []}]
        answers = converged(replace(CURRENT, loaded=None, installed=None))
        done = planned(answers, driver_source="none", ollama_instances=servers)
        assert driver_names(done) == []


class TestInstalledState:
    """Each way in which a host can differ from what is declared leads to an installation."""

    @pytest.mark.parametrize(
        ("state", "settings"),
        [
            (replace(CURRENT, installed=None), {}),  # the kernel is newer than the module
            (
                replace(
                    CURRENT,
                    installed=Module("590.48.01", "open"),
                    loaded=Module("590.48.01", "open"),
                ),
                {},
            ),
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
        answers = bare() | {LoggedJob: lambda unit: LoggedRun("failed", "exit-code", "why")}
        lines = planned(answers).step("gpu1", "Driver | Install driver 595 (open modules)").lines
        assert "journalctl" in lines[-1]
        assert "llm-fleet-driver-install.service" in lines[-1]
        assert lines[-1].endswith("exit 1")
