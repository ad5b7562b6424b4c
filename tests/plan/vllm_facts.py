"""What a host answers about vLLM on which nothing of ours has ever been installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleet.models.choice import GIB
from fleet.vllm.facts import GpuSizes, MakesToken, Venv, Venvs, VllmServers, VllmUnits, WeightsThere
from fleet.vllm.memory import Weights
from fleet.vllm.model import ModelConfig

BARE: dict[type, Callable[..., Any]] = {
    VllmServers: VllmUnits,
    Venvs: lambda directory: Venv(),
    # Weights that somebody else keeps there.
    WeightsThere: lambda folder: Weights(GIB, ModelConfig("GptOssForCausalLM")),
    MakesToken: lambda url, model: False,
    GpuSizes: dict,
}
