"""Blobs and manifests on the disk: damage, room, and what nobody uses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import model_store
from tests.unit.models.loader_rig import Ollama, Run, model


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
        monkeypatch.setattr(model_store, "ORPHAN_AGE", -1)
        assert run(declared)
        assert not orphan.exists()
        assert not partial.exists()
        assert ollama.blob(b"a:1").exists()

    def test_nothing_is_swept_while_a_manifest_cannot_be_read(
        self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(model_store, "ORPHAN_AGE", -1)
        ollama.blob(b"orphan").write_bytes(b"")
        ollama.publish("other:1", b"x")
        ollama.store("other:1")
        ollama.path_of("other:1").write_bytes(b"{")
        assert run(model(ollama))
        assert ollama.blob(b"orphan").exists()
