"""`auto`: which model, and why."""

from __future__ import annotations

import pytest

from fleet.models.choice import GIB, Memory, choose


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
