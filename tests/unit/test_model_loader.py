"""The loader against an HTTP server that answers as Ollama was seen to answer."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "fleet" / "host" / "model_loader.py"
GB = 1_000_000_000

# What /api/pull streams. Ollama's status is 200 whatever comes; a failure is the last line.
MANIFEST = {"status": "pulling manifest"}
SUCCESS = {"status": "success"}
NOT_FOUND = {"error": "pull model manifest: file does not exist"}


def layer(digest: str, total: int, completed: int | None = None) -> dict[str, Any]:
    line: dict[str, Any] = {"status": f"pulling {digest}", "digest": digest, "total": total}
    return line if completed is None else {**line, "completed": completed}


class Ollama(ThreadingHTTPServer):
    """An API with `models`; `pulls` are the streams of the next pulls, then each succeeds."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: set[str] = set()
        self.pulls: list[list[dict[str, Any]]] = []
        self.loads: list[int] = []  # statuses of the next loads, then each succeeds
        self.fails: dict[str, int] = {}  # path -> status of its next answer
        self.calls: list[tuple[str, str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def did(self, *paths: str) -> list[Any]:
        """The bodies sent to `paths`, in order."""
        return [body for _, path, body in self.calls if path in paths]


class _Handler(BaseHTTPRequestHandler):
    server: Ollama

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.calls.append((self.command, self.path, body))
        status = self.server.fails.pop(self.path, 200)
        if status != 200:
            self._send(status, [{"error": "it broke"}])
            return
        getattr(self, "_" + self.path.removeprefix("/api/"))(body)

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 - names of the base class

    def _send(self, status: int, lines: list[dict[str, Any]]) -> None:
        self.send_response(status)
        self.end_headers()
        for line in lines:
            self.wfile.write(json.dumps(line).encode() + b"\n")

    def _tags(self, body: None) -> None:
        self._send(200, [{"models": [{"name": name} for name in sorted(self.server.models)]}])

    def _pull(self, body: dict[str, Any]) -> None:
        lines = self.server.pulls.pop(0) if self.server.pulls else [MANIFEST, SUCCESS]
        if lines and lines[-1] == SUCCESS:
            self.server.models.add(body["model"])
        self._send(200, lines)

    def _copy(self, body: dict[str, Any]) -> None:
        if body["source"] not in self.server.models:
            self._send(404, [{"error": f"model '{body['source']}' not found"}])
            return
        self.server.models.add(body["destination"])
        self._send(200, [])

    def _delete(self, body: dict[str, Any]) -> None:
        if self.command != "DELETE":
            self._send(405, [])
            return
        self.server.models.discard(body["model"])
        self._send(200, [])

    def _generate(self, body: dict[str, Any]) -> None:
        status = self.server.loads.pop(0) if self.server.loads else 200
        if status == 200 and body["model"] not in self.server.models:
            status = 404
        self._send(status, [{"done": True} if status == 200 else {"error": "cannot load"}])

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    server = Ollama()
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
    spec.loader.exec_module(module)
    return module


class Run:
    """Runs of the loader for a list of models, and the state that they leave."""

    def __init__(self, program: ModuleType, api: str, state: Path) -> None:
        self.program, self.api, self.path = program, api, state

    def __call__(self, *models: dict[str, Any]) -> bool:
        config = {"api": self.api, "state": str(self.path), "models": list(models)}
        return bool(self.program.Loader(config).run())

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        models: dict[str, dict[str, Any]] = json.loads(self.path.read_text())["models"]
        return models


@pytest.fixture
def run(
    program: ModuleType, ollama: Ollama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    monkeypatch.setattr(program, "FIRST_DELAY", 0.0)
    return Run(program, ollama.url, tmp_path / "run" / "state.json")


def model(name: str, source: str | None = None, *, insecure: bool = False) -> dict[str, Any]:
    return {"name": name, "source": source or name, "insecure": insecure}


def test_missing_model_is_pulled_and_loaded(run: Run, ollama: Ollama) -> None:
    assert run(model("gpt-oss:20b"))
    assert ollama.models == {"gpt-oss:20b"}
    assert ollama.did("/api/pull") == [{"model": "gpt-oss:20b", "insecure": False}]
    assert ollama.did("/api/generate") == [{"model": "gpt-oss:20b"}]
    assert run.state["gpt-oss:20b"]["phase"] == "ready"
    assert run.state["gpt-oss:20b"]["error"] == ""


def test_present_model_is_not_pulled(run: Run, ollama: Ollama) -> None:
    ollama.models = {"gpt-oss:20b"}
    assert run(model("gpt-oss:20b"))
    assert ollama.did("/api/pull") == []


def test_every_model_is_worked_on_though_one_fails(run: Run, ollama: Ollama) -> None:
    ollama.pulls = [[MANIFEST, NOT_FOUND]] * run.program.ATTEMPTS
    assert not run(model("nope:1"), model("b:1"))
    assert ollama.models == {"b:1"}
    assert {name: entry["phase"] for name, entry in run.state.items()} == {
        "nope:1": "failed",
        "b:1": "ready",
    }


class TestMirror:
    SOURCE = "mirror:5000/library/gpt-oss:20b"

    def test_model_gets_its_declared_name_and_keeps_no_other(
        self, run: Run, ollama: Ollama
    ) -> None:
        assert run(model("gpt-oss:20b", self.SOURCE, insecure=True))
        assert ollama.models == {"gpt-oss:20b"}
        assert ollama.did("/api/pull") == [{"model": self.SOURCE, "insecure": True}]
        assert ollama.did("/api/copy") == [{"source": self.SOURCE, "destination": "gpt-oss:20b"}]
        assert ("DELETE", "/api/delete", {"model": self.SOURCE}) in ollama.calls
        assert ollama.did("/api/generate") == [{"model": "gpt-oss:20b"}]

    def test_without_a_mirror_nothing_is_copied_or_deleted(self, run: Run, ollama: Ollama) -> None:
        assert run(model("gpt-oss:20b"))
        assert ollama.did("/api/copy", "/api/delete") == []

    def test_failed_copy_is_tried_again(self, run: Run, ollama: Ollama) -> None:
        ollama.fails = {"/api/copy": 500}
        assert run(model("gpt-oss:20b", self.SOURCE))
        assert ollama.models == {"gpt-oss:20b"}

    @pytest.mark.xfail(strict=True, reason="the second attempt sees the model and stops there")
    def test_failed_delete_is_tried_again(self, run: Run, ollama: Ollama) -> None:
        ollama.fails = {"/api/delete": 500}
        assert run(model("gpt-oss:20b", self.SOURCE))
        assert ollama.models == {"gpt-oss:20b"}


class TestFailures:
    def test_error_line_inside_a_200_answer(self, run: Run, ollama: Ollama) -> None:
        """The status is 200 and the first line is well: only the last line tells."""
        ollama.pulls = [[MANIFEST, NOT_FOUND]] * run.program.ATTEMPTS
        assert not run(model("nope:1"))
        assert len(ollama.did("/api/pull")) == run.program.ATTEMPTS
        assert ollama.did("/api/generate") == []
        attempts = run.program.ATTEMPTS
        assert run.state["nope:1"]["error"] == (
            f"nope:1: pull model manifest: file does not exist (attempt {attempts} of {attempts})"
        )

    @pytest.mark.parametrize("lines", [[], [MANIFEST], [MANIFEST, layer("a", 9, 4)]])
    def test_stream_that_ends_early(
        self, run: Run, ollama: Ollama, lines: list[dict[str, Any]]
    ) -> None:
        ollama.pulls = [lines] * run.program.ATTEMPTS
        assert not run(model("a:1"))
        assert "the pull ended after" in run.state["a:1"]["error"]

    def test_second_attempt_succeeds_and_leaves_no_error(self, run: Run, ollama: Ollama) -> None:
        ollama.pulls = [[MANIFEST, NOT_FOUND], [MANIFEST, SUCCESS]]
        assert run(model("a:1"))
        assert len(ollama.did("/api/pull")) == 2
        assert run.state["a:1"]["phase"] == "ready"
        assert run.state["a:1"]["error"] == ""

    def test_delay_doubles(self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
        delays: list[float] = []
        monkeypatch.setattr(run.program, "FIRST_DELAY", 2.0)
        monkeypatch.setattr(run.program.time, "sleep", delays.append)
        ollama.pulls = [[NOT_FOUND]] * run.program.ATTEMPTS
        run(model("a:1"))
        assert delays == [2.0 * 2**attempt for attempt in range(run.program.ATTEMPTS - 1)]

    def test_http_error_is_reported_with_its_answer(
        self, run: Run, ollama: Ollama, capsys: pytest.CaptureFixture[str]
    ) -> None:
        ollama.fails = {"/api/pull": 500}
        assert run(model("a:1"))
        assert capsys.readouterr().err == (
            f'a:1: /api/pull: 500 {{"error": "it broke"}} (attempt 1 of {run.program.ATTEMPTS})\n'
        )

    @pytest.mark.xfail(strict=True, reason="the second attempt sees the model and never loads it")
    def test_model_that_cannot_be_loaded_is_not_ready(self, run: Run, ollama: Ollama) -> None:
        ollama.loads = [500] * run.program.ATTEMPTS
        assert not run(model("a:1"))
        assert run.state["a:1"]["phase"] == "failed"
        assert "/api/generate: 500" in run.state["a:1"]["error"]

    def test_api_that_is_not_up_yet(self, run: Run, ollama: Ollama) -> None:
        run.api = "http://127.0.0.1:9"
        assert not run(model("a:1"))
        assert "Connection refused" in run.state["a:1"]["error"]

    def test_proxy_of_the_environment_is_not_asked(
        self, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert run(model("a:1"))


class TestState:
    @pytest.fixture
    def saved(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        """Each state of the only model, as it was on disk after each save."""
        states: list[dict[str, Any]] = []
        save = run.program.Loader._save

        def keep(loader: Any) -> None:
            save(loader)
            [entry] = run.state.values()
            states.append(entry)

        monkeypatch.setattr(run.program.Loader, "_save", keep)
        return states

    def test_phases(self, run: Run, saved: list[dict[str, Any]]) -> None:
        run(model("a:1"))
        assert [entry["phase"] for entry in saved] == ["waiting", "pulling", "loading", "ready"]

    def test_bytes_of_all_layers_are_added_up(
        self, run: Run, ollama: Ollama, saved: list[dict[str, Any]]
    ) -> None:
        ollama.pulls = [
            [
                MANIFEST,
                layer("a", 12 * GB),
                layer("a", 12 * GB, 5 * GB),
                layer("b", 1 * GB, 1 * GB),
                layer("a", 12 * GB, 12 * GB),
                {"status": "verifying sha256 digest"},
                SUCCESS,
            ]
        ]
        run(model("a:1"))
        pulled = [(entry["completed"], entry["total"]) for entry in saved if entry["total"]]
        assert pulled[:4] == [
            (0, 12 * GB),
            (5 * GB, 12 * GB),
            (6 * GB, 13 * GB),
            (13 * GB, 13 * GB),
        ]

    def test_what_was_there_already_does_not_count_for_the_rate(
        self, run: Run, ollama: Ollama, saved: list[dict[str, Any]]
    ) -> None:
        now = iter(range(100, 200))
        run.program.time.monotonic, kept = (lambda: next(now)), run.program.time.monotonic
        try:
            ollama.pulls = [
                [layer("a", 100, 60), layer("a", 100, 70), layer("a", 100, 90), SUCCESS]
            ]
            run(model("a:1"))
        finally:
            run.program.time.monotonic = kept
        rates = {entry["completed"]: entry["rate"] for entry in saved if entry["total"]}
        assert rates == {60: 0, 70: 5, 90: 10}

    def test_reader_never_sees_half_a_file(self, run: Run) -> None:
        """What is being read stays whole: the new state is another file, renamed over it."""
        run(model("a:1"))
        with run.path.open() as reader:
            run(model("b:1"))
            assert list(json.load(reader)["models"]) == ["a:1"]
        assert list(run.state) == ["b:1"]
        assert list(run.path.parent.iterdir()) == [run.path]


def test_as_the_unit_runs_it(ollama: Ollama, tmp_path: Path) -> None:
    """Standard library only, the configuration's path as its argument, 0 as its answer."""
    config = tmp_path / "models.json"
    config.write_text(
        json.dumps(
            {"api": ollama.url, "state": str(tmp_path / "state.json"), "models": [model("a:1")]}
        )
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", PROGRAM, config], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert ollama.models == {"a:1"}
