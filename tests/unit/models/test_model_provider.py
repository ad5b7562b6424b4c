"""How a model comes to the disk: pulled, made of another, or imported from a file."""

from __future__ import annotations

from typing import Any

import pytest

from manifests import Manifest
from model_loader import Loader
from tests.unit.models.loader_rig import MANIFEST, SUCCESS, Ollama, Run, layer, model, sha256
from transfer import RefusedError


def test_missing_model_is_pulled_named_and_tried(run: Run, ollama: Ollama) -> None:
    declared = model(ollama)
    assert run(declared)
    assert ollama.models == {"a:1"}, "the mirror's name is gone"
    assert ollama.did("/api/pull") == [{"model": declared["source"], "insecure": True}]
    assert ollama.did("/api/generate") == [{"model": "a:1"}]
    assert (run.state["a:1"]["phase"], run.state["a:1"]["error"]) == ("ready", "")


def test_interrupted_rename_is_finished(run: Run, ollama: Ollama) -> None:
    """A run that died between the copy and the deletion of the mirror's name."""
    declared = model(ollama)
    ollama.fails = {"/api/delete": 500}
    assert run(declared)
    assert ollama.models == {"a:1"}


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
        asked = Manifest(before)
        loader = Loader(run.config({**declared, "digest": asked.digest}))
        loader.provider.ask_registry = lambda model: asked
        with pytest.raises(RefusedError, match="the tag has moved"):
            loader.provider.pull(loader.models[0])
        assert ollama.path_of("a:1").read_bytes() == before

    def test_registry_that_wants_a_key_and_a_pin(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama)
        ollama.fails = {"/v2/library/a/manifests/1": 401}
        assert not run({**declared, "digest": "ab" * 32})
        assert "leave digest out" in run.state["a:1"]["error"]
        ollama.fails = {"/v2/library/a/manifests/1": 401}
        assert run(declared), "without a pin Ollama's own key is enough"


def test_room_is_watched_where_only_ollama_sees_the_size(run: Run, ollama: Ollama) -> None:
    declared = model(ollama)
    ollama.fails = {"/v2/library/a/manifests/1": 401}
    ollama.pulls = [[MANIFEST, layer("sha256:a", 10**18, 0), SUCCESS]]
    assert not run(declared)
    assert "needs 1000000.0 TB and a reserve of 0 B" in run.state["a:1"]["error"]
    assert run.state["a:1"]["attempts"] == 1


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
