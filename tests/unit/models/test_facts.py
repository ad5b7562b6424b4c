"""What is asked of a host's memory and of the loader's work."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.models.choice import GIB, Memory
from fleet.models.facts import HostMemory, ModelsCheck, ModelsState


class TestHostMemory:
    def test_two_gpus(self) -> None:
        lines = ["ram 65536000", "bus", "bus", "gpu 81559", "gpu 81559"]
        assert HostMemory().process(lines) == Memory((81559 * 1024**2,) * 2, 65536000 * 1024)

    def test_gpu_that_says_nothing(self) -> None:
        assert HostMemory().process(["ram 1", "bus"]).has_silent_gpu

    def test_gpu_without_memory_of_its_own(self) -> None:
        """One that shares the host's memory says so: the host's is what there is."""
        memory = HostMemory().process(["ram 134217728", "bus", "gpu [N/A]"])
        assert memory == Memory((), 128 * GIB)

    def test_this_machine_is_asked(self) -> None:
        script = HostMemory().command().get_raw_value()
        output = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
        memory = HostMemory().process(output.stdout.splitlines())
        total = Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]
        assert memory.ram == int(total) * 1024


class TestModelsState:
    def test_loader_that_is_not_installed_yet(self) -> None:
        assert ModelsState().process([]) == ModelsCheck()

    @pytest.mark.parametrize(
        "line",
        [
            "Welcome to this host", "[]", "null", "{}", "[" * 100_000,
            '{"models": ["a:1"], "pending": {"a:1": 7}, "undeclared": {}}',
            '{"models": ["a:1"], "pending": {}, "undeclared": {"b:1": {}}}',
        ],
        ids=lambda line: line[:30],
    )  # fmt: skip
    def test_answer_of_something_else(self, line: str) -> None:
        check = ModelsState().process([line])
        assert not check.is_known
        assert "--check says" in check.why

    def test_answer(self) -> None:
        line = '{"models": ["a:1"], "pending": {"a:1": "is not there"}, "undeclared": {}}'
        assert ModelsState().process([line]) == ModelsCheck(
            True, ("a:1",), {"a:1": "is not there"}, {}
        )
