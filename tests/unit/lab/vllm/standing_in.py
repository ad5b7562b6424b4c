"""The stand-in for vLLM, as a process."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
PATIENCE = 30  # s, for a busy machine
# As systemd's MemoryDenyWriteExecute, for this process and its children: PR_SET_MDWE.
FORBIDDEN = {"FORBID": "1"}
_MDWE = (
    "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass
class Vllm:
    """One that runs."""

    process: subprocess.Popen[bytes]
    port: int

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}
    ) -> tuple[int, str]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        text = body if isinstance(body, str) or body is None else json.dumps(body)
        link.request(method, path, text, dict(headers))
        answer = link.getresponse()
        content = answer.read().decode()
        link.close()
        return answer.status, content

    def chat(self, **other: Any) -> Any:
        status, text = self.ask("POST", "/v1/chat/completions", {**CHAT, **other})
        assert status == 200, text
        return json.loads(text)

    def stream(self, **other: Any) -> http.client.HTTPResponse:
        """A stream that has begun."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        body = {**CHAT, "stream": True, **other}
        # The answer has the connection to itself.
        link.request("POST", "/v1/chat/completions", json.dumps(body), {"Connection": "close"})
        return link.getresponse()

    def metric(self, name: str) -> float:
        lines = self.ask("GET", "/metrics")[1].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}"))

    def child(self, name: str) -> int:
        """The process called `name`, below this one."""
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            if Path(f"/proc/{pid}/comm").read_text().strip() == name[:15]:
                return pid
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        raise AssertionError(f"no {name}")


def until(true: Any) -> None:
    ends = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < ends, "it did not become so in time"
        time.sleep(0.02)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextmanager
def started(tmp_path: Path, *flags: str, environment: Mapping[str, str] = {}) -> Iterator[Vllm]:
    (tmp_path / "model").mkdir(exist_ok=True)
    config = {"architectures": ["GptOssForCausalLM"], "max_position_embeddings": 512}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    port = _free_port()
    command = [
        sys.executable, "-m", "lab.vllm.api_server", "--model", str(tmp_path / "model"),
        "--host", "127.0.0.1", "--port", str(port), *flags,
    ]  # fmt: skip
    if "--served-model-name" not in flags:
        command += ["--served-model-name", "tiny", "other/tiny"]
    variables = {**os.environ, "LAB_VLLM_READY_AFTER": "0", **environment}
    if variables.pop("FORBID", ""):
        command = [sys.executable, "-c", _MDWE, *command]
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE) as process:
        try:
            yield Vllm(process, port)
        finally:
            with suppress(ProcessLookupError):
                process.kill()


@contextmanager
def serving(tmp_path: Path, *flags: str, **environment: str) -> Iterator[Vllm]:
    with started(tmp_path, *flags, environment=environment) as vllm:
        until(lambda: _listens(vllm.port))
        yield vllm


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
