"""Servers and fixtures for the tests of the lab's upstream: what is started here is killed here."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

CACHE = Path("/var/cache/llm-fleet-lab")
MODEL = "gpt-oss:20b"
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
WEIGHTS = "sha256:a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


def free_port() -> int:
    """Return a TCP port of loopback that nothing listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def until(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Wait for a condition and return what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return value


@dataclass
class Server:
    """A running ``ollama serve``."""

    process: subprocess.Popen[bytes]
    port: int
    home: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def models(self) -> Path:
        return self.home / ".ollama" / "models"

    @property
    def blob(self) -> Path:
        """Return the weights on disk."""
        return self.models / "blobs" / WEIGHTS.replace(":", "-")

    def call(self, path: str, body: Any = None, method: str = "", **more: Any) -> requests.Response:
        method = method or ("GET" if body is None else "POST")
        return requests.request(method, self.url + path, json=body, timeout=60, **more)

    def raw(self, method: str, path: str) -> http.client.HTTPResponse:
        """Send a path as it is written, and follow no redirect."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, "{}" if method == "POST" else None)
            answer = connection.getresponse()
            answer.read()
            return answer

    def lines(self, path: str, body: Any) -> list[dict[str, Any]]:
        """Return the lines of a streamed answer, which always says 200."""
        answer = self.call(path, body)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def ask(self, path: str, body: Any) -> tuple[int, Any]:
        answer = self.call(path, {**body, "stream": False})
        return answer.status_code, answer.json()

    def running(self) -> list[dict[str, Any]]:
        models: list[dict[str, Any]] = self.call("/api/ps").json()["models"]
        return models

    def child(self) -> int:
        """Return the process id of the only llama-server."""
        (pid,) = self.children()
        return pid

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task")
        return [int(p) for task in path.iterdir() for p in (task / "children").read_text().split()]

    def command_line(self) -> list[str]:
        return Path(f"/proc/{self.child()}/cmdline").read_text().split("\0")[:-1]


@dataclass
class Lab:
    """What every test of this file starts from."""

    release: Path
    store: Path
    folder: Path
    started: list[Server] = field(default_factory=list)

    def start(
        self,
        *,
        before: Callable[[Server], None] | None = None,
        tree: Path | None = None,
        wrap: tuple[str, ...] = (),
        seed: bool = True,
        **env: str,
    ) -> Server:
        """Start a server on its own copy of the store (blobs are hard links)."""
        home = self.folder / f"home{len(self.started)}"
        models = home / ".ollama" / "models"
        models.parent.mkdir(parents=True)
        if seed:
            subprocess.run(["cp", "-al", self.store, models], check=True)
        port = free_port()
        binary = (tree or self.release) / "bin" / "ollama"
        log = home / "log"
        environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        environment |= {"OLLAMA_HOST": f"127.0.0.1:{port}", **env}
        server = Server(None, port, home, log)  # type: ignore[arg-type]
        if before:
            before(server)
        with log.open("wb") as out:
            server.process = subprocess.Popen(
                [*wrap, str(binary), "serve"],
                env={k: v.format(port=port) for k, v in environment.items()},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(server)
        until(lambda: "Listening on" in log.read_text(), log.read_text())
        return server

    def stop(self) -> None:
        """Kill every server and every child, orphans too: they share the server's process group."""
        for server in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()


def reachable(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as s:
        return s.connect_ex((host, int(port))) == 0


def cli(server: Server, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    binary = Path(f"/proc/{server.process.pid}/exe").readlink()
    environment = {"HOME": str(server.home), "OLLAMA_HOST": f"127.0.0.1:{server.port}", **env}
    return subprocess.run(
        [binary, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
