"""An HTTP server that answers as Ollama was seen to answer, its files, and runs of the loader.

The server also is the registry. What needs a real Ollama is in tests/lab/test_models.py.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import model_loader

GB = 1_000_000_000


FAR = "2319-03-03T02:18:13Z"


MANIFEST = {"status": "pulling manifest"}


SUCCESS = {"status": "success"}


BROKEN = {"error": "max retries exceeded: unexpected EOF"}


Lines = list[dict[str, Any]]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Ollama(ThreadingHTTPServer):
    """An API over a real models directory, and the registry that it pulls from.

    `pulls` are the streams of the next pulls (each succeeds after them), `loads` the statuses of
    the next loads, `fails` a path's status for its next answer.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        (root / "blobs").mkdir(parents=True, exist_ok=True)
        self.registry: dict[str, dict[str, bytes]] = {}  # full name -> kind -> content
        self.pulls: list[Lines] = []
        self.loads: list[int] = []
        self.fails: dict[str, int] = {}
        self.loaded: dict[str, dict[str, Any]] = {}
        self.embedders: set[str] = set()  # models that make embeddings, and nothing else
        self.calls: list[tuple[str, str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}  # path to what the registry says instead
        self.says: dict[str, bytes] = {}  # path of the API to what it answers instead
        self.cuts: dict[str, int] = {}  # path of a file to where its next answer breaks off
        self.silence = 0.0  # seconds before the last line of a pull

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def did(self, *paths: str) -> list[Any]:
        """The bodies sent to `paths`, in order."""
        return [body for _, path, body in self.calls if path in paths]

    def publish(self, name: str, weights: bytes = b"weights", **layers: bytes) -> str:
        """Have a model in the registry; its digest."""
        self.registry[name] = {"model": weights, **layers}
        return sha256(self.manifest_of(name))

    def manifest_of(self, name: str) -> bytes:
        return json.dumps({"layers": [
            {"mediaType": f"application/vnd.ollama.image.{kind}", "size": len(content),
             "digest": f"sha256:{sha256(content)}"}
            for kind, content in self.registry[name].items()
        ]}).encode()  # fmt: skip

    def path_of(self, name: str) -> Path:
        model, tag = name.rsplit(":", 1)
        parts = model.split("/")
        return self.root.joinpath(
            "manifests", *["registry.ollama.ai", "library"][: 3 - len(parts)], *parts, tag
        )

    def blob(self, content: bytes) -> Path:
        return self.root / "blobs" / f"sha256-{sha256(content)}"

    def store(self, name: str) -> None:
        """Bring a published model onto the disk. A blob that is there is taken as it is."""
        for content in self.registry[name].values():
            if not self.blob(content).exists():
                self.blob(content).write_bytes(content)
        path = self.path_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.manifest_of(name))

    @property
    def models(self) -> set[str]:
        names = set()
        for path in self.root.glob("manifests/*/*/*/*"):
            host, namespace, model, tag = path.parts[-4:]
            short = host == "registry.ollama.ai" and namespace == "library"
            names.add(f"{model}:{tag}" if short else f"{host}/{namespace}/{model}:{tag}")
        return names


class _Handler(BaseHTTPRequestHandler):
    server: Ollama

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        data = self.rfile.read(length)
        is_json = length and not self.path.startswith("/api/blobs")
        body = json.loads(data) if is_json else data
        self.server.calls.append((self.command, self.path, body or None))
        status = self.server.fails.pop(self.path, 200)
        if status != 200:
            self._send(status, [{"error": "it broke"}])
        elif self.path in self.server.says:
            self._raw(200, self.server.says[self.path])
        elif self.path.startswith("/v2/"):
            self._registry()
        elif self.path.startswith("/files/"):
            self._file(self.server.files[self.path])
        elif self.path.startswith("/api/blobs/"):
            (self.server.root / "blobs" / self.path[11:].replace(":", "-")).write_bytes(data)
            self._send(201, [])
        else:
            getattr(self, "_" + self.path.removeprefix("/api/"))(body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names of the base class

    def _send(self, status: int, lines: Lines) -> None:
        self._raw(status, b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def _raw(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(content)

    def _registry(self) -> None:
        if self.path in self.server.manifests:
            self._raw(200, self.server.manifests[self.path])
            return
        _, _, namespace, model, _, tag = self.path.split("/")
        name = f"{self.server.host}/{namespace}/{model}:{tag}"
        if name not in self.server.registry:
            self._raw(404, b"{}")
            return
        self._raw(200, self.server.manifest_of(name))

    def _file(self, content: bytes) -> None:
        first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if first >= len(content):
            self._raw(416, b"")
            return
        self.send_response(206)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        last = self.server.cuts.pop(self.path, len(content))
        self.wfile.write(content[first:last])

    def _version(self, body: None) -> None:
        self._send(200, [{"version": "0.0.0"}])

    def _tags(self, body: None) -> None:
        models = [{"name": name, "size": 7} for name in sorted(self.server.models)]
        self._send(200, [{"models": models}])

    def _ps(self, body: None) -> None:
        models = [{"name": name, "size": 7, **entry} for name, entry in self.server.loaded.items()]
        self._send(200, [{"models": models}])

    def _show(self, body: Any) -> None:
        can = "embedding" if body["model"] in self.server.embedders else "completion"
        info = {"gemma3.context_length": 32768}
        self._send(200, [{"model_info": info, "capabilities": [can]}])

    def _pull(self, body: dict[str, Any]) -> None:
        lines = self.server.pulls.pop(0) if self.server.pulls else [MANIFEST, SUCCESS]
        if lines and lines[-1] == SUCCESS:
            self.server.store(body["model"])
        self.send_response(200)
        self.end_headers()
        for line in lines[:-1]:
            self.wfile.write(json.dumps(line).encode() + b"\n")
        self.wfile.flush()
        if self.server.silence:
            time.sleep(self.server.silence)
        for line in lines[-1:]:
            self.wfile.write(json.dumps(line).encode() + b"\n")

    def _create(self, body: dict[str, Any]) -> None:
        layers = {"params": json.dumps(body.get("parameters", {})).encode()}
        if body.get("system"):
            layers["system"] = body["system"].encode()
        base = body.get("from")
        weights = self.server.registry[base]["model"] if base else self._rewritten(body["files"])
        self.server.publish(body["model"], weights, **layers)
        self.server.store(body["model"])
        self._send(200, [SUCCESS])

    def _rewritten(self, files: dict[str, str]) -> bytes:
        """`llama-quantize COPY`: another file, and the same one when it is done again."""
        [digest] = files.values()
        content = (self.server.root / "blobs" / digest.replace(":", "-")).read_bytes()
        return b"copy of " + content.removeprefix(b"copy of ")

    def _copy(self, body: dict[str, Any]) -> None:
        self.server.registry[body["destination"]] = self.server.registry[body["source"]]
        self.server.store(body["destination"])
        self._send(200, [])

    def _delete(self, body: dict[str, Any]) -> None:
        assert self.command == "DELETE"
        self.server.path_of(body["model"]).unlink()
        self._send(200, [])

    def _embed(self, body: dict[str, Any]) -> None:
        self._run(body)

    def _generate(self, body: dict[str, Any]) -> None:
        is_unload = body.get("keep_alive") == 0 and not body.get("prompt")
        if body["model"] in self.server.embedders and not is_unload:
            text = f'"{body["model"]}" does not support generate'
            self._send(400, [{"error": text}])
            return
        self._run(body)

    def _run(self, body: dict[str, Any]) -> None:
        status = self.server.loads.pop(0) if self.server.loads else 200
        keep = body.get("keep_alive")
        if keep == 0:
            self.server.loaded.pop(body["model"], None)
        elif status == 200:
            expires = FAR if keep == -1 else "2000-01-01T00:00:00Z"
            self.server.loaded[body["model"]] = {"expires_at": expires, "context_length": 4096}
        self._send(status, [{"done": True} if status == 200 else {"error": "cannot load"}])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def ollama(tmp_path: Path) -> Iterator[Ollama]:
    yield from _serve(tmp_path / "models")


@pytest.fixture
def other(ollama: Ollama) -> Iterator[Ollama]:
    """A second Ollama on the same models directory."""
    yield from _serve(ollama.root)


def _serve(root: Path) -> Iterator[Ollama]:
    server = Ollama(root)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Run:
    """Runs of the loader for a list of models, and the state that they leave."""

    def __init__(self, ollama: Ollama, root: Path) -> None:
        self.ollama, self.root = ollama, root
        self.changes: dict[str, Any] = {}
        self.limits: dict[str, float] = {
            "no_progress": 5, "slow_rate": 0, "slow_window": 1, "attempts": 3,
            "first_delay": 0, "longest_delay": 0, "disk_reserve": 0,
        }  # fmt: skip

    def config(self, *models: dict[str, Any]) -> dict[str, Any]:
        return {
            "api": self.ollama.url, "models_dir": str(self.ollama.root), "prune": False,
            "state": str(self.root / "run" / "state.json"),
            "memory": str(self.root / "lib" / "memory.json"),
            "choice": str(self.root / "choice.json"), "context": None, "limits": self.limits,
            "models": list(models), **self.changes,
        }  # fmt: skip

    def __call__(self, *models: dict[str, Any]) -> bool:
        return bool(model_loader.Loader(self.config(*models)).run())

    def check(self, *models: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = model_loader.Loader(self.config(*models)).check()
        return answer

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        models: dict[str, dict[str, Any]] = json.loads(
            (self.root / "run" / "state.json").read_text()
        )["models"]
        return models


@pytest.fixture
def run(ollama: Ollama, tmp_path: Path) -> Run:
    return Run(ollama, tmp_path)


def model(ollama: Ollama, name: str = "a:1", **values: Any) -> dict[str, Any]:
    """A declaration of a model that the registry has, under the same name behind a host."""
    source = f"{ollama.host}/library/{name}"
    if source not in ollama.registry and not values.get("base") and not values.get("gguf"):
        ollama.publish(source, name.encode())
    made = values.get("base") or values.get("gguf")
    definition = {"system": "", "template": "", "parameters": {}}
    return {
        "name": name, "source": name if made else source, "insecure": True, "digest": None,
        "base": None, "gguf": None, "sha256": None, "load": False, "keep_alive": -1,
        **values, "definition": definition | values.get("definition", {}),
    }  # fmt: skip


def layer(digest: str, total: int, completed: int) -> dict[str, Any]:
    return {"status": f"pulling {digest}", "digest": digest, "total": total, "completed": completed}
