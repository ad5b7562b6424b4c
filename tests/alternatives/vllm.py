"""A host for vLLM alone, behind the alternative gateway."""

from __future__ import annotations

from typing import Any

NAME = "infer"
GROUPS = "vllm"
_IMAGE = "vllm/vllm-openai:v0.32.0@sha256:" + "ab" * 32
# What it needs, beside its groups. On the CPU: where Ollama is too, that one sees every GPU.
LEAST: dict[str, Any] = {
    "docker_enabled": True,
    "vllm_image": _IMAGE,
    "vllm_servers": [
        {
            "name": "gpt-oss",
            "weights": "/srv/weights/gpt-oss-120b",
            "served_names": ["openai/gpt-oss-120b"],
            "port": 8000,
            "gpus": [],
        }
    ],
}
# Every setting that can differ from its default does; on the CPU, as no test's host has GPUs.
SETTINGS: dict[str, Any] = {
    "private_address": "fd00::5",
    "docker_enabled": True,
    "vllm_image": f"mirror.internal:5000/{_IMAGE}",
    "vllm_python": "/usr/bin/python3.12",
    "vllm_index_url": "https://mirror.internal/simple",
    "vllm_listen": "private",
    "vllm_driver_branch": 575,
    "vllm_start_timeout": "1h",
    "vllm_shutdown_timeout": "2m",
    "vllm_watch_every": "1m",
    "vllm_watch_timeout": "5m",
    "vllm_servers": [
        {
            "name": "large",
            "weights": "/data/weights/gpt-oss-120b",
            "served_names": ["gpt-oss:120b", "openai/gpt-oss-120b"],
            "port": 8001,
            "gpus": [],
            "tensor_parallel": 1,
            "context": 65536,
            "memory_share": 0.5,
            "max_sequences": 32,
            "max_queued": 64,
            "max_choices": 2,
            "kv_cache": "fp8",
            "tool_parser": "openai",
            "reasoning_parser": "openai_gptoss",
            "flags": {
                "max-num-batched-tokens": 8192,
                "enable-prefix-caching": False,
                "async-scheduling": True,
                "compilation-config.mode": 3,
                "otlp-traces-endpoint": "http://traces.internal/50%h of $HOME",
            },
            "env": {"VLLM_LOGGING_LEVEL": "WARNING", "FORMAT": "50%h of $HOME"},
        },
        {
            "name": "small",
            "weights": "/data/weights/gpt-oss-20b",
            "served_names": ["gpt-oss:20b"],
            "port": 8002,
            "gpus": [],
            "memory_share": 0.4,
        },
    ],
}
