"""Runs of the loader: attempts, pruning, `auto`, and several servers on one directory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import model_loader
import model_provider
import model_store
from common import TO_BE_STARTED_ANEW
from model_loader import Loader, OutdatedError
from tests.host_programs import PYTHON_OPTIONS, laid_out
from tests.unit.models.loader_rig import (
    BROKEN,
    FAR,
    MANIFEST,
    SUCCESS,
    Lines,
    Ollama,
    Run,
    layer,
    model,
    sha256,
)
from transfer import RefusedError


def test_second_run_does_nothing(run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pull, no load, and not a byte is hashed."""
    declared = model(ollama)
    assert run(declared)
    ollama.calls.clear()
    monkeypatch.setattr(model_store, "sha256", None)
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
        monkeypatch.setattr(time, "sleep", delays.append)
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
        run.limits |= {"no_progress": 0.5}
        ollama.silence = 1.5
        ollama.pulls = [[MANIFEST, SUCCESS]]
        assert not run({**model(ollama)})
        assert "not a word from Ollama" in run.state["a:1"]["error"]

    def test_silence_is_expected_while_ollama_hashes(
        self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_provider, "HASH_RATE", 1)
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


A_DIGEST = f"sha256:{'a' * 64}"
# Of a registry: what a pull must not be begun by.
NO_MANIFESTS = {
    "list": b"[]",
    "null": b"null",
    "deep": b"[" * 100_000,
    "no layers": b"{}",
    "digest a number": b'{"layers": [{"digest": 7, "size": 1, "mediaType": "x"}]}',
    "digest a path": b'{"layers": [{"digest": "../../../x", "size": 1, "mediaType": "x"}]}',
    "size a text": json.dumps(
        {"layers": [{"digest": A_DIGEST, "size": "1", "mediaType": "x"}]}
    ).encode(),
    "endless": b" " * (5 << 20),
    "html": b"<html>Sign in</html>",
}
# Of whatever answers at Ollama's port.
NO_ANSWERS = [
    b"[]", b"null", b"7", b"[" * 100_000, b"<html>", b'{"models": 7}', b'{"models": [7]}',
    b'{"models": [{"name": 7, "size": 7}]}', b'{"models": [{"name": "x"}]}',
    b'{"models": [{"name": "a:1", "size": 7, "expires_at": 7}]}',
    b'{"models": [{"name": "a:1", "size": 7, "context_length": "many"}]}',
]  # fmt: skip


class TestOutsideData:
    """One bad answer is one model's failure, and the others are loaded."""

    @pytest.mark.parametrize("content", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
    def test_registry_that_sends_no_manifest(
        self, run: Run, ollama: Ollama, content: bytes
    ) -> None:
        ollama.manifests["/v2/library/bad/manifests/1"] = content
        assert not run(model(ollama, "bad:1", load=True), model(ollama, "b:1", load=True))
        assert run.state["bad:1"]["phase"] == "failed"
        assert run.state["b:1"]["phase"] == "ready", run.state
        assert "/v2/library/bad/manifests/1" in run.state["bad:1"]["error"]
        assert list(ollama.loaded) == ["b:1"]

    @pytest.mark.parametrize("content", NO_MANIFESTS.values(), ids=NO_MANIFESTS)
    def test_manifest_on_the_disk_that_is_none(
        self, run: Run, ollama: Ollama, content: bytes
    ) -> None:
        """A declared model's is fetched again; another's keeps nobody from anything."""
        declared = model(ollama, load=True)
        assert run(declared, model(ollama, "b:1"))
        for name in ("a:1", "b:1"):
            ollama.path_of(name).write_bytes(content)
        assert run.check(declared)["pending"] == {"a:1": "is not there"}
        assert run(declared), run.state
        ollama.publish(declared["source"], b"new")
        assert run({**declared, "digest": sha256(ollama.manifest_of(declared["source"]))})

    def test_pipe_as_a_manifest(self, run: Run, ollama: Ollama) -> None:
        assert run(model(ollama), model(ollama, "b:1"))
        ollama.path_of("a:1").unlink()
        os.mkfifo(ollama.path_of("a:1"))
        assert run.check(model(ollama), model(ollama, "b:1"))["pending"] == {"a:1": "is not there"}
        # An undeclared one too: the server opens whatever is there to list it.
        other = ollama.path_of("c:1")
        other.parent.mkdir(parents=True)
        os.mkfifo(other)
        assert run(model(ollama), model(ollama, "b:1")), run.state
        assert ollama.path_of("a:1").is_file()
        assert not other.exists()

    @pytest.mark.parametrize("answer", NO_ANSWERS, ids=repr)
    @pytest.mark.parametrize("path", ["/api/ps", "/api/tags"])
    def test_answer_that_is_not_ollamas(
        self, run: Run, ollama: Ollama, path: str, answer: bytes
    ) -> None:
        declared = model(ollama, load=True)
        assert run(declared)
        ollama.says[path] = answer
        run.changes = {"prune": True}
        check = run.check(declared)
        assert check["pending"].keys() <= {"a:1"}
        assert check["undeclared"] == {}
        run(declared)
        assert run.state["a:1"]["phase"] in ("ready", "failed")
        assert run.state["a:1"]["phase"] == "ready" or path in run.state["a:1"]["error"]

    @pytest.mark.parametrize("lines", [b"[]\n", b"7\n", b'{"error": 7}\n', b"x" * (2 << 20)])
    def test_pull_that_answers_something_else(self, run: Run, ollama: Ollama, lines: bytes) -> None:
        ollama.says["/api/pull"] = lines
        assert not run(model(ollama))
        assert run.state["a:1"]["phase"] == "failed"

    def test_names_that_are_none(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama, load=True)
        assert run(declared)
        for name in ("no-tag", "../../etc:x", "a/b/c/d/e:1", "x:..", ":", "", "a:1\n"):
            ollama.loaded = {name: {"expires_at": FAR}, **ollama.loaded}
        assert run.check(declared)["pending"] == {}

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[]",
            b'{"blobs": []}',
            b'{"blobs": {}, "models": {"a:1": 7}}',
            b"\xff",
            b"[" * 99_999,
        ],
    )
    def test_memory_that_is_none(self, run: Run, ollama: Ollama, content: bytes) -> None:
        """Nothing of it is trusted: everything is hashed and loaded anew."""
        assert run(model(ollama))
        (run.root / "lib" / "memory.json").write_bytes(content)
        assert "has not been hashed" in run.check(model(ollama))["pending"]["a:1"]
        assert run(model(ollama))

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"model": 7}'])
    def test_choice_that_is_none(self, run: Run, ollama: Ollama, content: bytes) -> None:
        (run.root / "choice.json").write_bytes(content)
        with pytest.raises(RefusedError, match="delete it and run the deploy"):
            run(model(ollama, "auto:latest"))

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"models": 7}', b"\xff\xfe"])
    def test_configuration_that_is_none(
        self, tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = tmp_path / "models.json"
        config.write_bytes(content)
        assert model_loader.main([str(config)]) == 1
        assert "run the deploy, which writes it anew" in capsys.readouterr().err

    def test_model_that_cannot_be_pruned(self, run: Run, ollama: Ollama) -> None:
        ollama.publish("stray:1", b"x")
        ollama.store("stray:1")
        run.changes = {"prune": True}
        ollama.fails = {"/api/delete": 500}
        declared = model(ollama, load=True)
        ollama.store(declared["source"])
        ollama.registry["a:1"] = ollama.registry[declared["source"]]
        ollama.store("a:1")
        ollama.path_of(declared["source"]).unlink()
        assert run(declared)
        assert list(ollama.loaded) == ["a:1"]


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
        # It can be asked for as `auto`, too: a fleet's hosts may differ in what that is.
        assert ollama.models == {"gpt-oss:20b", "auto:latest", "my-auto:latest"}
        assert ollama.did("/api/create")[0]["system"] == "Not auto:latest."
        assert list(run.state) == ["gpt-oss:20b", "my-auto:latest"]
        assert run.check(own, auto) == {
            "models": ["gpt-oss:20b", "my-auto:latest"], "pending": {}, "undeclared": {},
        }  # fmt: skip

    def test_follows_another_choice_and_a_moved_tag(self, run: Run, ollama: Ollama) -> None:
        auto = model(ollama, "auto:latest")
        for chosen, weights in (("20b", b"small"), ("120b", b"large"), ("120b", b"newer")):
            (run.root / "choice.json").write_text(f'{{"model": "gpt-oss:{chosen}"}}')
            ollama.publish(f"{ollama.host}/library/gpt-oss:{chosen}", weights)
            if weights == b"newer":
                ollama.path_of("gpt-oss:120b").unlink()
            assert run.check(auto)["pending"] == {f"gpt-oss:{chosen}": "is not there"}
            assert run(auto)
            blob = f"sha256:{sha256(weights)}"
            assert blob in ollama.path_of("auto:latest").read_text()
            assert run.check(auto)["pending"] == {}
        ollama.path_of("auto:latest").unlink()
        said = run.check(auto)["pending"]
        assert said == {"gpt-oss:120b": "is not what auto:latest is here"}
        pulls = len(ollama.did("/api/pull"))
        assert run(auto)
        assert (run.check(auto)["pending"], len(ollama.did("/api/pull"))) == ({}, pulls)

    def test_beside_the_model_itself(self, run: Run, ollama: Ollama) -> None:
        (run.root / "choice.json").write_text('{"model": "gpt-oss:20b"}')
        own, auto = model(ollama, "gpt-oss:20b", load=True), model(ollama, "auto:latest")
        run.changes = {"prune": True}
        assert run(own, auto)
        assert ollama.models == {"gpt-oss:20b", "auto:latest"}
        assert list(ollama.loaded) == ["gpt-oss:20b"]

    def test_before_a_choice_was_made(self, run: Run, ollama: Ollama) -> None:
        program = laid_out(run.root / "lib", "models", "model_loader")
        config = run.root / "config.json"
        config.write_text(json.dumps(run.config(model(ollama, "auto:latest"))))
        result = subprocess.run(
            [sys.executable, *PYTHON_OPTIONS, program, "--check", config],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert json.loads(result.stdout)["pending"] == {
            "auto:latest": "no model was chosen for this host yet; run the deploy"
        }


def test_as_the_unit_runs_it(run: Run, ollama: Ollama, tmp_path: Path) -> None:
    """Standard library only, the configuration's path as its argument, 0 as its answer."""
    program = laid_out(tmp_path / "lib", "models", "model_loader")
    config = tmp_path / "models.json"
    config.write_text(json.dumps(run.config(model(ollama))))
    result = subprocess.run(
        [sys.executable, *PYTHON_OPTIONS, program, config],
        check=False,
        capture_output=True,
        text=True,
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
        monkeypatch.setattr(model_loader, "API_PATIENCE", 0)
        both.changes = {"others": [{"api": "http://127.0.0.1:9", "context": None}]}
        assert not both(model(ollama, load=True))
        assert ollama.models == {"a:1"}
        assert list(ollama.loaded) == ["a:1"]
        assert "refused" in both.state["a:1"]["error"]

    def test_first_that_is_down_keeps_the_others_from_nothing(
        self, run: Run, ollama: Ollama, other: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_loader, "API_PATIENCE", 0)
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
        monkeypatch.setattr(model_loader, "API_PATIENCE", 0)
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
        program = laid_out(tmp_path / "lib", "models", "model_loader")
        path = tmp_path / "models.json"
        path.write_text(json.dumps(both.config(model(ollama, load=True))))
        process = subprocess.Popen([sys.executable, program, path], stderr=subprocess.PIPE)
        while not (tmp_path / "run" / "state.json").exists():
            assert process.poll() is None
            time.sleep(0.1)
        both.changes = {}
        new = tmp_path / "models.new"
        new.write_text(json.dumps(both.config(model(ollama, load=True))))
        new.replace(path)
        _, said = process.communicate(timeout=60)
        # Not by itself: in the sandbox of the unit of before, which may not open the new directory.
        assert process.returncode == TO_BE_STARTED_ANEW, said
        assert b"the configuration was replaced meanwhile: to be started anew" in said
        subprocess.run([sys.executable, program, path], check=True, capture_output=True)
        assert both.state["a:1"]["phase"] == "ready"

    def test_failed_attempt_asks_whether_it_is_still_wanted(
        self, both: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_loader, "API_PATIENCE", 0)
        both.changes = {"others": [{"api": "http://127.0.0.1:9", "context": None}]}
        loader = Loader(both.config(model(ollama, load=True)), lambda: True)
        with pytest.raises(OutdatedError, match="refused"):
            loader.run()
        assert list(ollama.loaded) == ["a:1"], "what could be done was"
