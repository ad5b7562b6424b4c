"""What a host answers, by the commands that ask it, and what is believed of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.vllm.facts import GpuSizes, MakesToken, Venv, Venvs, VllmServers, VllmUnits, WeightsThere
from fleet.vllm.memory import Weights
from tests.unit.facts import ask
from tests.unit.vllm.servers import GPTOSS
from tests.unit.vllm.test_memory import CONFIG


class TestWeights:
    def test_sizes_and_configuration(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(CONFIG, indent=2))
        for place, size in enumerate((3, 4)):
            (tmp_path / f"model-{place} of 2.safetensors").write_bytes(b"x" * size)
        (tmp_path / "tokenizer.json").write_bytes(b"x" * 99)
        assert ask(WeightsThere(), folder=str(tmp_path)) == Weights(7, GPTOSS)

    def test_links_count_by_what_they_lead_to(self, tmp_path: Path) -> None:
        """As the Hugging Face cache has them."""
        (tmp_path / "blob").write_bytes(b"x" * 5)
        (tmp_path / "model.safetensors").symlink_to("blob")
        assert ask(WeightsThere(), folder=str(tmp_path)) == Weights(5)

    @pytest.mark.parametrize("text", ["", "{", "[1]", '{"num_hidden_layers": "x"}', "x" * 5_000])
    def test_whatever_the_file_holds(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "config.json").write_text(text)
        assert ask(WeightsThere(), folder=str(tmp_path)) == Weights()

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert ask(WeightsThere(), folder=f"{tmp_path}/a b/'c'") == Weights()


@pytest.mark.parametrize(
    ("said", "makes"),
    [
        ('{"choices": [{"text": "a"}], "usage": {"completion_tokens": 1}}', True),
        ('{"choices": [], "usage": {"completion_tokens": 0}}', False),
        ('{"error": {"message": "no"}}', False),
        ("<html>", False),
        ("", False),
    ],
)
def test_token(said: str, makes: bool) -> None:
    assert MakesToken().process([said]) is makes


def test_no_server_makes_no_token() -> None:
    assert ask(MakesToken(), url="http://127.0.0.1:1", model="m") is False


def test_units() -> None:
    lines = [
        "path /etc/systemd/system/vllm@a.service",
        "path /etc/systemd/system/vllm@a.service.wants/vllm-watch@a.timer",
        "unit vllm@b.service",
    ]
    found = VllmServers().process(lines)
    assert found == VllmUnits(tuple(line[5:] for line in lines[:2]), ("vllm@b.service",))


def test_venvs(tmp_path: Path) -> None:
    (tmp_path / ".llm-fleet-lock").write_text("ab\n")
    assert ask(Venvs(), directory=str(tmp_path)).lock == "ab"
    assert ask(Venvs(), directory=f"{tmp_path}/none") == Venv()


def test_gpu_sizes() -> None:
    uuid = "GPU-5a3f1c00-0000-4000-8000-000000000000"
    lines = [f"{uuid}, 81559", "GPU-x, [N/A]", "No devices were found"]
    found: dict[str, Any] = GpuSizes().process(lines)
    assert found == {uuid: 81_559 << 20, "GPU-x": 0}
