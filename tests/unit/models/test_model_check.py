"""What is in the memory of a server, compared with what is declared."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.models.loader_rig import Ollama, Run, model


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


def test_each_has_its_own_models(run: Run, ollama: Ollama, other: Ollama) -> None:
    """What is tried or kept in memory is so where it is served; the disk has all of it."""
    run.changes = {
        "serves": ["a:1"],
        "others": [{"api": other.url, "context": None, "serves": ["b:1", "c:1"]}],
    }
    declared = [
        model(ollama, "a:1", load=True), model(ollama, "b:1", load=True), model(ollama, "c:1"),
    ]  # fmt: skip
    assert run(*declared)
    assert ollama.models == {"a:1", "b:1", "c:1"}
    loads = [
        {body["model"] for body in item.did("/api/generate", "/api/embed")}
        for item in (ollama, other)
    ]
    assert loads == [{"a:1"}, {"b:1", "c:1"}]
    assert run.check(*declared)["pending"] == {}
    ollama.loaded["b:1"], other.loaded = ollama.loaded["a:1"], {}
    pending = run.check(*declared)["pending"]
    assert pending == {"b:1": f"is not loaded at {other.host}"}
