"""The loader against an HTTP server that answers as Ollama was seen to answer, and its files.

The server also is the registry. What needs a real Ollama is in tests/lab/test_models.py.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "fleet" / "models" / "on_host" / "model_loader.py"
GB = 1_000_000_000
WEIGHTS_TYPE = "application/vnd.ollama.image.model"
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
        self.wfile.write(content[first:])

    def _version(self, body: None) -> None:
        self._send(200, [{"version": "0.0.0"}])

    def _tags(self, body: None) -> None:
        models = [{"name": name, "size": 7} for name in sorted(self.server.models)]
        self._send(200, [{"models": models}])

    def _ps(self, body: None) -> None:
        models = [{"name": name, **entry} for name, entry in self.server.loaded.items()]
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
        weights = self.server.registry[base]["model"] if base else b"from a file"
        self.server.publish(body["model"], weights, **layers)
        self.server.store(body["model"])
        self._send(200, [SUCCESS])

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


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("model_loader", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model_loader"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


class Run:
    """Runs of the loader for a list of models, and the state that they leave."""

    def __init__(self, program: ModuleType, ollama: Ollama, root: Path) -> None:
        self.program, self.ollama, self.root = program, ollama, root
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
        return bool(self.program.Loader(self.config(*models)).run())

    def check(self, *models: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.program.Loader(self.config(*models)).check()
        return answer

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        models: dict[str, dict[str, Any]] = json.loads(
            (self.root / "run" / "state.json").read_text()
        )["models"]
        return models


@pytest.fixture
def run(program: ModuleType, ollama: Ollama, tmp_path: Path) -> Run:
    return Run(program, ollama, tmp_path)


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


def test_missing_model_is_pulled_named_and_tried(run: Run, ollama: Ollama) -> None:
    declared = model(ollama)
    assert run(declared)
    assert ollama.models == {"a:1"}, "the mirror's name is gone"
    assert ollama.did("/api/pull") == [{"model": declared["source"], "insecure": True}]
    assert ollama.did("/api/generate") == [{"model": "a:1"}]
    assert (run.state["a:1"]["phase"], run.state["a:1"]["error"]) == ("ready", "")


def test_second_run_does_nothing(run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pull, no load, and not a byte is hashed."""
    declared = model(ollama)
    assert run(declared)
    ollama.calls.clear()
    monkeypatch.setattr(run.program.Store, "hash", None)
    assert run(declared)
    assert run.check(declared)["pending"] == {}
    assert {path for _, path, _ in ollama.calls} <= {"/api/version", "/api/ps", "/api/tags"}


def test_every_model_is_worked_on_though_one_fails(run: Run, ollama: Ollama) -> None:
    missing = {**model(ollama, "nope:1"), "source": f"{ollama.host}/library/gone:1"}
    assert not run(missing, model(ollama, "b:1"))
    assert {name: entry["phase"] for name, entry in run.state.items()} == {
        "nope:1": "failed",
        "b:1": "ready",
    }
    assert "404" in run.state["nope:1"]["error"]
    assert run.state["nope:1"]["attempts"] == 1, "what no registry has is not asked for again"


def test_interrupted_rename_is_finished(run: Run, ollama: Ollama) -> None:
    """A run that died between the copy and the deletion of the mirror's name."""
    declared = model(ollama)
    ollama.fails = {"/api/delete": 500}
    assert run(declared)
    assert ollama.models == {"a:1"}


class TestAttempts:
    def test_error_line_inside_a_200_answer(self, run: Run, ollama: Ollama) -> None:
        ollama.pulls = [[MANIFEST, BROKEN]] * 3
        assert not run(model(ollama))
        assert run.state["a:1"]["error"] == f"{BROKEN['error']} (attempt 3 of 3)"
        assert ollama.did("/api/generate") == []

    @pytest.mark.parametrize("lines", [[], [MANIFEST], [MANIFEST, layer("a", 9, 0)]])
    def test_stream_that_ends_early(self, run: Run, ollama: Ollama, lines: Lines) -> None:
        ollama.pulls = [lines] * 3
        assert not run(model(ollama))
        assert "the pull ended after" in run.state["a:1"]["error"]

    def test_attempts_that_bring_new_bytes_are_not_counted(self, run: Run, ollama: Ollama) -> None:
        ollama.pulls = [[layer("a", 100, done), BROKEN] for done in range(10, 100, 10)]
        assert run(model(ollama))
        assert run.state["a:1"]["attempts"] == 10

    def test_delay_doubles_up_to_its_bound(
        self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        delays: list[float] = []
        monkeypatch.setattr(run.program.time, "sleep", delays.append)
        run.limits |= {"first_delay": 2, "longest_delay": 10, "attempts": 5}
        ollama.pulls = [[BROKEN]] * 5
        assert not run(model(ollama))
        assert delays == [2, 4, 8, 10]

    def test_model_that_cannot_be_loaded_is_not_ready(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama)
        ollama.loads = [500] * 3
        assert not run(declared)
        assert "/api/generate: 500" in run.state["a:1"]["error"]
        assert run.check(declared)["pending"] == {"a:1": "has not been loaded once"}

    def test_silent_ollama_is_given_up(self, run: Run, ollama: Ollama) -> None:
        run.limits |= {"no_progress": 0.2}
        ollama.silence = 0.6
        ollama.pulls = [[MANIFEST, SUCCESS]]
        assert not run({**model(ollama)})
        assert "not a word from Ollama" in run.state["a:1"]["error"]

    def test_silence_is_expected_while_ollama_hashes(
        self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run.program, "HASH_RATE", 1)
        run.limits |= {"no_progress": 0.2}
        ollama.silence = 0.6
        ollama.pulls = [[MANIFEST, {"status": "verifying sha256 digest"}, SUCCESS]]
        assert run(model(ollama))

    def test_proxy_of_the_environment_is_not_asked_for_the_api(
        self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        declared = model(ollama)
        assert run(declared)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert run({**declared, "load": True})


class TestWatch:
    @pytest.fixture
    def watch(self, program: ModuleType) -> Any:
        limits = program.Limits(30, 0, 10, 1, 0, 0, 0)
        return lambda **changes: program.Watch(program.Limits(**{**vars(limits), **changes}), 0.0)

    def test_rate_forgets_what_was_there_already(self, watch: Any) -> None:
        look = watch()
        assert look.saw(6 * GB, 10 * GB, 0.0) == 0
        assert look.saw(6 * GB + 500, 10 * GB, 5.0) == 100
        assert look.saw(6 * GB + 500, 10 * GB, 20.0) == 0

    def test_stall(self, watch: Any, program: ModuleType) -> None:
        look = watch()
        look.saw(5, 10, 0.0)
        look.saw(5, 10, 29.0)
        with pytest.raises(program.StalledError, match="no new byte for 30 s, at 5 B of 10 B"):
            look.saw(5, 10, 30.0)

    def test_bytes_lost_and_fetched_again_are_no_progress(
        self, watch: Any, program: ModuleType
    ) -> None:
        """Ollama takes a part back whose connection was reset: up and down, and never on."""
        look = watch()
        look.saw(5, 10, 0.0)
        for second in range(1, 30):
            look.saw(second % 5, 10, float(second))
        with pytest.raises(program.StalledError):
            look.saw(5, 10, 30.0)

    def test_slow_is_only_a_fault_when_a_rate_is_declared(
        self, watch: Any, program: ModuleType
    ) -> None:
        for look, error in ((watch(), None), (watch(slow_rate=2), program.TooSlowError)):
            for second in range(10):
                look.saw(second, 1000, float(second))
            if error is None:
                look.saw(10, 1000, 10.0)
                continue
            with pytest.raises(error, match="1 B/s over 10 s is below 2 B/s"):
                look.saw(10, 1000, 10.0)

    def test_complete_is_neither_stalled_nor_slow(self, watch: Any) -> None:
        look = watch(slow_rate=1000)
        look.saw(10, 10, 0.0)
        look.saw(10, 10, 3600.0)


class TestPin:
    def test_moved_tag(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama)
        old = ollama.publish(declared["source"], b"old")
        assert run({**declared, "digest": old})
        new = ollama.publish(declared["source"], b"new")
        assert run({**declared, "digest": old}), "what is there is what is declared"
        assert not run({**declared, "digest": "ab" * 32})
        error = run.state["a:1"]["error"]
        assert "ab" * 32 in error
        assert new in error
        assert sha256(ollama.path_of("a:1").read_bytes()) == old
        assert len(ollama.did("/api/pull")) == 1
        assert run({**declared, "digest": new})
        assert not ollama.blob(b"old").exists(), "nothing names it any more"

    def test_tag_that_moves_in_mid_pull(self, run: Run, ollama: Ollama) -> None:
        """Between our look and Ollama's: what it replaced is put back."""
        declared = {**model(ollama), "source": "a:1"}
        ollama.publish("a:1", b"old")
        ollama.store("a:1")
        before = ollama.path_of("a:1").read_bytes()
        ollama.publish("a:1", b"new")
        asked = run.program.Manifest(before)
        loader = run.program.Loader(run.config({**declared, "digest": asked.digest}))
        loader._ask_registry = lambda model: asked
        with pytest.raises(run.program.RefusedError, match="the tag has moved"):
            loader._pull(loader.models[0])
        assert ollama.path_of("a:1").read_bytes() == before

    def test_registry_that_wants_a_key_and_a_pin(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama)
        ollama.fails = {"/v2/library/a/manifests/1": 401}
        assert not run({**declared, "digest": "ab" * 32})
        assert "leave digest out" in run.state["a:1"]["error"]
        ollama.fails = {"/v2/library/a/manifests/1": 401}
        assert run(declared), "without a pin Ollama's own key is enough"


class TestBlobs:
    @pytest.mark.parametrize("damage", [b"WEIGHTS", b"weigh", None], ids=["wrong", "short", "gone"])
    def test_damage_is_found_and_mended(
        self, run: Run, ollama: Ollama, damage: bytes | None
    ) -> None:
        ollama.publish(f"{ollama.host}/library/a:1", b"weights")
        declared = model(ollama)
        assert run(declared)
        blob = ollama.blob(b"weights")
        blob.unlink()
        if damage is not None:
            blob.write_bytes(damage)
        assert blob.name in run.check(declared)["pending"]["a:1"]
        assert run(declared)
        assert blob.read_bytes() == b"weights"

    def test_what_was_loaded_from_it_is_unloaded(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama, load=True)
        assert run(declared)
        ollama.blob(b"a:1").write_bytes(b"A:1")
        ollama.calls.clear()
        assert run(declared)
        assert ollama.did("/api/generate") == [
            {"model": "a:1", "keep_alive": 0},
            {"model": "a:1", "keep_alive": -1},
        ]

    def test_manifest_that_is_none(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama)
        assert run(declared)
        ollama.path_of("a:1").write_bytes(b"{")
        assert run.check(declared)["pending"] == {"a:1": "is not there"}
        assert run(declared)

    def test_space_is_checked_before_the_first_byte(self, run: Run, ollama: Ollama) -> None:
        run.limits |= {"disk_reserve": 1e18}
        assert not run(model(ollama))
        error = run.state["a:1"]["error"]
        assert "needs 3 B and a reserve of 1000000.0 TB" in error
        assert f"free in {ollama.root}: nothing was fetched" in error
        assert ollama.did("/api/pull") == []

    def test_unused_blobs_go_after_a_day(
        self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        orphan, partial = (ollama.blob(b"orphan"), Path(f"{ollama.blob(b'cut')}-partial"))
        for path in (orphan, partial):
            path.write_bytes(b"")
            os.utime(path, (0, 0))  # as `cp -p` and `rsync -a` leave it
        declared = model(ollama)
        assert run(declared)
        assert orphan.exists()
        assert partial.exists()
        monkeypatch.setattr(run.program, "ORPHAN_AGE", -1)
        assert run(declared)
        assert not orphan.exists()
        assert not partial.exists()
        assert ollama.blob(b"a:1").exists()

    def test_nothing_is_swept_while_a_manifest_cannot_be_read(
        self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run.program, "ORPHAN_AGE", -1)
        ollama.blob(b"orphan").write_bytes(b"")
        ollama.publish("other:1", b"x")
        ollama.store("other:1")
        ollama.path_of("other:1").write_bytes(b"{")
        assert run(model(ollama))
        assert ollama.blob(b"orphan").exists()


class TestCustom:
    def test_made_after_its_base_and_once(self, run: Run, ollama: Ollama) -> None:
        base = model(ollama, "base:1")
        own = model(ollama, "own:1", base="base:1", definition={"parameters": {"num_ctx": 48000}})
        assert run(own, base)
        assert ollama.did("/api/create") == [
            {"model": "own:1", "from": "base:1", "parameters": {"num_ctx": 48000}}
        ]
        assert run(own, base)
        assert len(ollama.did("/api/create")) == 1

    @pytest.mark.parametrize(
        "change",
        [{"system": "Be brief."}, {"template": "{{ .Prompt }}"}, {"parameters": {"num_ctx": 1}}],
        ids=lambda change: next(iter(change)),
    )
    def test_made_anew_for_each_kind_of_change(
        self, run: Run, ollama: Ollama, change: dict[str, Any]
    ) -> None:
        base, own = model(ollama, "base:1"), model(ollama, "own:1", base="base:1")
        assert run(base, own)
        changed = model(ollama, "own:1", base="base:1", definition=change)
        assert run.check(base, changed)["pending"] == {
            "own:1": "was not created from its present definition"
        }
        assert run(base, changed)
        assert ollama.did("/api/create")[1] == {"model": "own:1", "from": "base:1", **change}

    def test_made_anew_after_a_change_by_hand(self, run: Run, ollama: Ollama) -> None:
        base, own = model(ollama, "base:1"), model(ollama, "own:1", base="base:1")
        assert run(base, own)
        ollama.publish("own:1", b"base:1", system=b"Ramble.")
        ollama.store("own:1")
        pending = run.check(base, own)["pending"]
        assert pending == {"own:1": "was changed by hand since it was created"}
        assert run(base, own)
        assert len(ollama.did("/api/create")) == 2

    def test_made_anew_with_a_new_base(self, run: Run, ollama: Ollama) -> None:
        base, own = model(ollama, "base:1"), model(ollama, "own:1", base="base:1")
        assert run(base, own)
        new = ollama.publish(base["source"], b"new weights")
        assert run({**base, "digest": new}, own)
        assert len(ollama.did("/api/create")) == 2


class TestGguf:
    CONTENT = b"from a file"
    SUM = sha256(CONTENT)

    def test_by_path(self, run: Run, ollama: Ollama, tmp_path: Path) -> None:
        file = tmp_path / "x.gguf"
        file.write_bytes(self.CONTENT)
        declared = model(ollama, gguf=str(file), sha256=self.SUM)
        assert run(declared)
        digest = f"sha256:{self.SUM}"
        assert ollama.did(f"/api/blobs/{digest}") == [self.CONTENT]
        assert ollama.did("/api/create") == [{"model": "a:1", "files": {"model.gguf": digest}}]
        file.unlink()
        assert run(declared), "it is not needed any more"

    def test_by_address_from_where_it_broke_off(self, run: Run, ollama: Ollama) -> None:
        ollama.files["/files/x"] = self.CONTENT
        part = ollama.root / ".llm-fleet" / f"{self.SUM}.part"
        part.parent.mkdir()
        part.write_bytes(self.CONTENT[:4])
        assert run(model(ollama, gguf=f"{ollama.url}/files/x", sha256=self.SUM))
        assert ollama.did(f"/api/blobs/sha256:{self.SUM}") == [self.CONTENT]
        assert not part.exists()

    def test_wrong_content_is_not_imported(self, run: Run, ollama: Ollama) -> None:
        ollama.files["/files/x"] = b"something else"
        assert not run(model(ollama, gguf=f"{ollama.url}/files/x", sha256=self.SUM))
        error = run.state["a:1"]["error"]
        assert f"the SHA-256 is {sha256(b'something else')}, declared is {self.SUM}" in error
        assert ollama.did("/api/create") == []
        assert list((ollama.root / ".llm-fleet").iterdir()) == []

    def test_missing_file_is_said_with_its_reader(self, run: Run, ollama: Ollama) -> None:
        assert not run(model(ollama, gguf="/nowhere/x.gguf", sha256=self.SUM))
        assert run.state["a:1"]["error"] == (
            "/nowhere/x.gguf: No such file or directory (it is read as the user ollama)"
        )


class TestMemory:
    def test_loaded_and_pinned(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama, load=True)
        assert run(declared)
        assert ollama.did("/api/generate") == [{"model": "a:1", "keep_alive": -1}]
        assert run.check(declared)["pending"] == {}
        ollama.loaded.clear()
        assert run.check(declared)["pending"] == {"a:1": "is not loaded"}

    def test_unpinned_by_a_client(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama, load=True)
        assert run(declared)
        ollama.loaded["a:1"]["expires_at"] = "2026-01-01T00:00:00Z"
        assert "is to stay loaded, but expires" in run.check(declared)["pending"]["a:1"]
        assert run(declared)

    def test_in_another_context(self, run: Run, ollama: Ollama) -> None:
        run.changes = {"context": 8192}
        assert not run(model(ollama, load=True))
        assert "with a context of 4096, declared is 8192" in run.state["a:1"]["error"]

    def test_one_that_may_expire_is_warmed_at_each_start_only(
        self, run: Run, ollama: Ollama
    ) -> None:
        declared = model(ollama, load=True, keep_alive="30m")
        assert run(declared)
        ollama.loaded.clear()
        assert run.check(declared)["pending"] == {}
        assert run(declared)
        assert ollama.did("/api/generate") == [{"model": "a:1", "keep_alive": "30m"}] * 2

    def test_loads_come_last(self, run: Run, ollama: Ollama) -> None:
        """What was only tried must not push out what is to stay."""
        assert run(model(ollama, "a:1", load=True), model(ollama, "b:1"))
        assert [body["model"] for body in ollama.did("/api/generate")] == ["b:1", "a:1"]


class TestEmbedding:
    """A model that makes embeddings is asked for some: `/api/generate` has 400 for it."""

    @pytest.fixture
    def embedder(self, ollama: Ollama) -> dict[str, Any]:
        ollama.embedders.add("a:1")
        return model(ollama)

    def test_tried(self, run: Run, ollama: Ollama, embedder: dict[str, Any]) -> None:
        assert run(embedder), run.state
        assert ollama.did("/api/embed") == [{"model": "a:1", "input": "x"}]
        assert run.check(embedder)["pending"] == {}

    def test_loaded_and_pinned(self, run: Run, ollama: Ollama, embedder: dict[str, Any]) -> None:
        declared = {**embedder, "load": True}
        assert run(declared), run.state
        assert ollama.did("/api/embed") == [{"model": "a:1", "input": "x", "keep_alive": -1}]
        assert run.check(declared)["pending"] == {}


class TestPrune:
    @pytest.fixture
    def strays(self, ollama: Ollama) -> None:
        for name in ("stray:1", "busy:1"):
            ollama.publish(name, name.encode())
            ollama.store(name)
        ollama.loaded["busy:1"] = {"expires_at": FAR, "context_length": 4096}

    def test_reported_only(self, run: Run, ollama: Ollama, strays: None) -> None:
        declared = model(ollama)
        assert run(declared)
        assert run.check(declared)["undeclared"] == {
            "stray:1": {"size": 7, "in_use": False},
            "busy:1": {"size": 7, "in_use": True},
        }
        assert ollama.models == {"a:1", "stray:1", "busy:1"}

    def test_removed_unless_in_use(self, run: Run, ollama: Ollama, strays: None) -> None:
        run.changes = {"prune": True}
        declared = model(ollama)
        assert run(declared)
        assert ollama.models == {"a:1", "busy:1"}
        assert run.check(declared)["pending"] == {}

    def test_nothing_is_removed_while_a_declared_one_fails(
        self, run: Run, ollama: Ollama, strays: None
    ) -> None:
        run.changes = {"prune": True}
        assert not run({**model(ollama), "source": f"{ollama.host}/library/gone:1"})
        assert "stray:1" in ollama.models


class TestAuto:
    def test_stands_for_this_hosts_choice(self, run: Run, ollama: Ollama) -> None:
        (run.root / "choice.json").write_text('{"model": "gpt-oss:20b"}')
        ollama.publish(f"{ollama.host}/library/gpt-oss:20b")
        auto = model(ollama, "auto:latest")
        own = model(ollama, "my-auto:latest", base="auto:latest",
                    definition={"system": "Not auto:latest."})  # fmt: skip
        assert run(own, auto)
        assert ollama.models == {"gpt-oss:20b", "my-auto:latest"}
        assert ollama.did("/api/create")[0]["system"] == "Not auto:latest."

    def test_before_a_choice_was_made(self, run: Run, ollama: Ollama) -> None:
        config = run.root / "config.json"
        config.write_text(json.dumps(run.config(model(ollama, "auto:latest"))))
        result = subprocess.run(
            [sys.executable, "-I", "-S", PROGRAM, "--check", config],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert json.loads(result.stdout)["pending"] == {
            "auto:latest": "no model was chosen for this host yet; run the deploy"
        }


class TestState:
    def test_reader_never_sees_half_a_file(self, run: Run, ollama: Ollama) -> None:
        run(model(ollama))
        path = run.root / "run" / "state.json"
        with path.open() as reader:
            run(model(ollama, "b:1"))
            assert list(json.load(reader)["models"]) == ["a:1"]
        assert list(run.state) == ["b:1"]
        assert list(path.parent.iterdir()) == [path]

    def test_bytes_of_all_layers_are_added_up(
        self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[int, int]] = []
        update = run.program.State.update

        def keep(state: Any, name: str, **values: Any) -> None:
            update(state, name, **values)
            if "rate" in values and state.models[name]["total"] > GB:
                seen.append((state.models[name]["completed"], state.models[name]["total"]))

        monkeypatch.setattr(run.program.State, "update", keep)
        ollama.pulls = [[layer("a", 12 * GB, 5 * GB), layer("b", GB, GB),
                         layer("a", 12 * GB, 12 * GB), SUCCESS]]  # fmt: skip
        run(model(ollama))
        assert seen[:3] == [(5 * GB, 12 * GB), (6 * GB, 13 * GB), (13 * GB, 13 * GB)]

    def test_second_loader_waits_for_the_first(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama)
        loader = run.program.Loader(run.config(declared))
        with loader._lock():
            other = threading.Thread(target=run, args=(declared,))
            other.start()
            deadline = time.monotonic() + 5
            path = run.root / "run" / "state.json"
            while not path.exists() or "another loader" not in path.read_text():
                assert time.monotonic() < deadline
            assert ollama.calls == []
        other.join()
        assert ollama.models == {"a:1"}


def test_as_the_unit_runs_it(run: Run, ollama: Ollama, tmp_path: Path) -> None:
    """Standard library only, the configuration's path as its argument, 0 as its answer."""
    config = tmp_path / "models.json"
    config.write_text(json.dumps(run.config(model(ollama))))
    result = subprocess.run(
        [sys.executable, "-I", "-S", PROGRAM, config], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "a:1 is not there\n")
    assert ollama.models == {"a:1"}


class TestSeveral:
    """Ollamas that share a models directory: one disk, and a memory of its own for each."""

    @pytest.fixture
    def both(self, run: Run, other: Ollama) -> Run:
        run.changes = {"others": [{"api": other.url, "context": None}]}
        return run

    def test_pulled_once_and_loaded_in_each(self, both: Run, ollama: Ollama, other: Ollama) -> None:
        declared = model(ollama, load=True)
        assert both(declared)
        assert (len(ollama.did("/api/pull")), other.did("/api/pull")) == (1, [])
        assert list(ollama.loaded) == list(other.loaded) == ["a:1"]
        assert both.check(declared)["pending"] == {}

    def test_one_that_lost_it_is_named_and_loads_alone(
        self, both: Run, ollama: Ollama, other: Ollama
    ) -> None:
        declared = model(ollama, load=True)
        assert both(declared)
        other.loaded.clear()
        pending = both.check(declared)["pending"]
        assert pending == {"a:1": f"is not loaded at 127.0.0.1:{other.server_port}"}
        ollama.calls.clear()
        assert both(declared)
        assert ollama.did("/api/generate") == []
        assert list(other.loaded) == ["a:1"]

    def test_each_has_its_own_context(self, both: Run, ollama: Ollama, other: Ollama) -> None:
        declared = model(ollama, load=True)
        assert both(declared)
        both.changes = {"others": [{"api": other.url, "context": 2048}]}
        assert both.check(declared)["pending"] == {
            "a:1": "is loaded with a context of 4096, declared is 2048 at "
            f"127.0.0.1:{other.server_port}"
        }

    def test_what_another_one_uses_is_not_pruned(
        self, both: Run, ollama: Ollama, other: Ollama
    ) -> None:
        assert both(model(ollama), model(ollama, "b:1"))
        ollama.loaded.clear()
        other.loaded["b:1"] = {"expires_at": FAR, "context_length": 4096}
        both.changes["prune"] = True
        assert both(model(ollama))
        assert ollama.models == {"a:1", "b:1"}
        other.loaded.clear()
        assert both(model(ollama))
        assert ollama.models == {"a:1"}

    def test_damage_is_unloaded_everywhere(self, both: Run, ollama: Ollama, other: Ollama) -> None:
        declared = model(ollama, load=True)
        assert both(declared)
        ollama.blob(b"a:1").write_bytes(b"A:1")
        other.calls.clear()
        assert both(declared)
        assert other.did("/api/generate")[0] == {"model": "a:1", "keep_alive": 0}

    def test_one_that_is_down_is_waited_for_and_fails_the_loading_only(
        self, both: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(both.program, "API_PATIENCE", 0)
        both.changes = {"others": [{"api": "http://127.0.0.1:9", "context": None}]}
        assert not both(model(ollama, load=True))
        assert ollama.models == {"a:1"}
        assert list(ollama.loaded) == ["a:1"]
        assert "refused" in both.state["a:1"]["error"]

    def test_first_that_is_down_keeps_the_others_from_nothing(
        self, run: Run, ollama: Ollama, other: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run.program, "API_PATIENCE", 0)
        run.changes = {
            "api": "http://127.0.0.1:9",
            "others": [{"api": server.url, "context": 4096} for server in (other, ollama)],
        }
        assert not run(model(other, load=True), model(other, "b:1"))
        assert len(other.did("/api/pull")) == 2
        assert [list(server.loaded) for server in (other, ollama)] == [["b:1", "a:1"], ["a:1"]]
        assert {name: entry["phase"] for name, entry in run.state.items()} == {
            "a:1": "failed",
            "b:1": "ready",
        }
        assert re.match(
            r"127\.0\.0\.1:9: .*refused.* \(attempt 3 of 3\)$", run.state["a:1"]["error"]
        )

    def test_damage_is_mended_while_one_is_down(
        self, both: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What refuses connections has nothing in memory."""
        monkeypatch.setattr(both.program, "API_PATIENCE", 0)
        both.changes = {"others": [{"api": "http://127.0.0.1:9", "context": None}]}
        assert both(model(ollama))
        ollama.blob(b"a:1").write_bytes(b"A:1")
        assert both(model(ollama)), both.state
        assert ollama.blob(b"a:1").read_bytes() == b"a:1"

    def test_one_that_is_taken_out_meanwhile_is_waited_for_no_more(
        self, both: Run, ollama: Ollama, tmp_path: Path
    ) -> None:
        """A server's start runs the loader, maybe just before a deploy replaces its file."""
        both.changes = {"others": [{"api": "http://127.0.0.1:9", "context": None}]}
        path = tmp_path / "models.json"
        path.write_text(json.dumps(both.config(model(ollama, load=True))))
        process = subprocess.Popen([sys.executable, PROGRAM, path], stderr=subprocess.PIPE)
        while not (tmp_path / "run" / "state.json").exists():
            assert process.poll() is None
            time.sleep(0.1)
        both.changes = {}
        new = tmp_path / "models.new"
        new.write_text(json.dumps(both.config(model(ollama, load=True))))
        new.replace(path)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        assert b"the configuration was replaced meanwhile: beginning anew" in said
        assert both.state["a:1"]["phase"] == "ready"

    def test_failed_attempt_asks_whether_it_is_still_wanted(
        self, both: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(both.program, "API_PATIENCE", 0)
        both.changes = {"others": [{"api": "http://127.0.0.1:9", "context": None}]}
        loader = both.program.Loader(both.config(model(ollama, load=True)), lambda: True)
        with pytest.raises(both.program.OutdatedError, match="refused"):
            loader.run()
        assert list(ollama.loaded) == ["a:1"], "what could be done was"
