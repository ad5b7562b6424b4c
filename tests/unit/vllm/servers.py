"""A vLLM server to test with, and what it serves."""

from __future__ import annotations

from typing import Any

from fleet.declare.fleet import Endpoint
from fleet.vllm.model import ModelConfig
from fleet.vllm.servers import VllmInstance
from fleet.vllm.settings import Vllm

UUIDS = [f"GPU-5a3f1c00-0000-4000-8000-{index:012}" for index in range(2)]
# As its config.json says.
GPTOSS = ModelConfig(
    "GptOssForCausalLM", 64, 8, 128, whole=18, windowed=18, window=128, context=131_072
)
SERVER: dict[str, Any] = {
    "name": "gpt-oss",
    "weights": "/srv/weights/gpt-oss-120b",
    "served_names": ["gpt-oss:120b", "openai/gpt-oss-120b"],
    "port": 8000,
    "gpus": UUIDS,
    "context": 131_072,
}
IMAGE = f"vllm/vllm-openai:v0.32.0@sha256:{'ab' * 32}"
_OF_THE_HOST = set(Vllm.model_fields)


def instance(**changed: Any) -> VllmInstance:
    """The server, with settings of its own or of its host `changed`."""
    own = {name: value for name, value in changed.items() if name not in _OF_THE_HOST}
    hosts = {name: value for name, value in changed.items() if name in _OF_THE_HOST}
    settings = Vllm(**{"image": IMAGE, "servers": [{**SERVER, **own}], **hosts})
    [server] = settings.servers
    return VllmInstance(server, settings, Endpoint("127.0.0.1", server.port), server.weights)
