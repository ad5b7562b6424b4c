"""`auto`: which model, and why."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.models.choice import GIB, Memory, choose
from fleet.models.facts import HostMemory, ModelsCheck, ModelsState


@pytest.mark.parametrize(
    ("gpus", "ram", "model", "why"),
    [
        ([80], 64, "gpt-oss:120b", "1 GPU with 80 GiB: at least the 68 GiB"),
        ([48, 48], 64, "gpt-oss:120b", "2 GPUs with 96 GiB: at least"),
        ([67], 512, "gpt-oss:20b", "1 GPU with 67 GiB: less than the 68 GiB"),
        ([16], 512, "gpt-oss:20b", "less than the 18 GiB that gpt-oss:20b needs with its whole"),
        ([], 128, "gpt-oss:120b", "no GPU, 128 GiB of memory: at least the 80 GiB"),
        ([], 64, "gpt-oss:20b", "no GPU, 64 GiB of memory: less than the 80 GiB"),
        ([], 8, "gpt-oss:20b", "and less than the 24 GiB that gpt-oss:20b needs"),
    ],
)
def test_choice(gpus: list[int], ram: int, model: str, why: str) -> None:
    choice = choose(Memory(tuple(size * GIB for size in gpus), ram * GIB))
    assert choice is not None
    assert choice.model == model
    assert why in choice.why


def test_silent_gpu_is_not_guessed_about() -> None:
    assert choose(Memory((), 512 * GIB, has_silent_gpu=True)) is None


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

    def test_answer(self) -> None:
        line = '{"models": ["a:1"], "pending": {"a:1": "is not there"}, "undeclared": {}}'
        assert ModelsState().process([line]) == ModelsCheck(
            True, ("a:1",), {"a:1": "is not there"}, {}
        )
