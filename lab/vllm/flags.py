"""The command line of the stand-in, which is vLLM's."""

from __future__ import annotations

import argparse

# Flags that a unit may be started with and that change nothing here, by how many values they have.
SWITCHES = """
async-scheduling disable-fastapi-docs disable-log-stats enable-chunked-prefill
enable-expert-parallel enable-prefix-caching enable-prompt-tokens-details enforce-eager
no-async-scheduling no-enable-chunked-prefill no-enable-prefix-caching trust-remote-code
enable-log-requests no-enable-log-requests disable-uvicorn-access-log disable-custom-all-reduce
"""
VALUES = """
attention-backend block-size chat-template compilation-config config-format cpu-offload-gb
distributed-executor-backend download-dir dtype generation-config gpu-memory-utilization
hf-overrides kv-cache-dtype kv-cache-memory-bytes load-format logits-processors
max-cudagraph-capture-size max-num-batched-tokens max-num-queued-tokens
override-generation-config pipeline-parallel-size quantization reasoning-parser revision
rope-scaling seed sse-keep-alive-interval stream-interval swap-space tensor-parallel-size
tokenizer tokenizer-revision tool-server uvicorn-log-level
"""


def arguments(argv: list[str]) -> argparse.Namespace:
    """The command line, as far as it changes what is done; what vLLM does not know is refused."""
    parser = argparse.ArgumentParser(prog="api_server.py", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", nargs="+", default=[])
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - vLLM's own default
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--uds")
    parser.add_argument("--api-key", nargs="*", default=[])
    parser.add_argument("--max-model-len", type=int)
    parser.add_argument("--max-num-seqs", type=int, default=128)
    parser.add_argument("--max-num-queued-reqs", type=int)
    parser.add_argument("--shutdown-timeout", type=int, default=0)
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--tool-call-parser")
    parser.add_argument("--enable-request-id-headers", action="store_true")
    parser.add_argument("--enable-force-include-usage", action="store_true")
    parser.add_argument("--enable-server-load-tracking", action="store_true")
    parser.add_argument("--disable-access-log-for-endpoints", nargs="*", default=[])
    for name in SWITCHES.split():
        parser.add_argument(f"--{name}", action="store_true")
    for name in VALUES.split():
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}")
    return parser.parse_args(argv)
