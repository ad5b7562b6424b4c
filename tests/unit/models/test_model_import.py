"""How a GGUF file becomes a model: its copies, their room, and what is left of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import transfer
from tests.unit.models.loader_rig import Ollama, Run, model, sha256

Room = Callable[[float], None]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    """Tells how many bytes are free in every file system."""

    def free(count: float) -> None:
        told = SimpleNamespace(f_bavail=int(count), f_frsize=1)
        monkeypatch.setattr(transfer.os, "statvfs", lambda _: told)

    return free


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
        assert not (ollama.root / "blobs" / f"sha256-{self.SUM}").exists(), "Ollama made another"
        file.unlink()
        assert run(declared), "it is not needed any more"

    def test_another_definition_needs_no_other_weights(self, run: Run, ollama: Ollama) -> None:
        """Neither the address nor the file is asked again: what Ollama made of it is there."""
        ollama.files["/files/x"] = self.CONTENT
        declared = {"gguf": f"{ollama.url}/files/x", "sha256": self.SUM}
        assert run(model(ollama, **declared))
        ollama.calls.clear()
        del ollama.files["/files/x"]
        changed = model(ollama, **declared, definition={"parameters": {"num_ctx": 1024}})
        again = model(ollama, "b:1", **declared)
        assert run(changed, again), run.state
        assert ollama.did(f"/api/blobs/sha256:{self.SUM}", "/files/x") == []
        made = ollama.did("/api/create")
        assert made[0]["parameters"] == {"num_ctx": 1024}
        assert [body["files"] for body in made] == [
            {"model.gguf": f"sha256:{sha256(b'copy of ' + self.CONTENT)}"}
        ] * 2
        assert run.check(changed, again)["pending"] == {}

    def test_file_is_asked_again_once_what_was_made_of_it_is_gone(
        self, run: Run, ollama: Ollama, tmp_path: Path
    ) -> None:
        file = tmp_path / "x.gguf"
        file.write_bytes(self.CONTENT)
        declared = {"gguf": str(file), "sha256": self.SUM}
        assert run(model(ollama, **declared))
        ollama.blob(b"copy of " + self.CONTENT).write_bytes(b"damaged")
        assert run(model(ollama, **declared, definition={"system": "x"})), run.state
        assert len(ollama.did(f"/api/blobs/sha256:{self.SUM}")) == 2

    def test_upload_of_a_run_that_was_killed_goes(self, run: Run, ollama: Ollama) -> None:
        """Between the creation and the tidying."""
        ollama.files["/files/x"] = self.CONTENT
        declared = model(ollama, gguf=f"{ollama.url}/files/x", sha256=self.SUM)
        assert run(declared)
        ollama.blob(self.CONTENT).write_bytes(self.CONTENT)
        assert run(declared)
        assert not ollama.blob(self.CONTENT).exists()

    @pytest.mark.parametrize(("copies", "fits"), [(2.5, False), (3.5, True)])
    def test_room_for_the_peak_of_an_address(
        self, run: Run, ollama: Ollama, room: Room, copies: float, fits: bool
    ) -> None:
        ollama.files["/files/x"] = self.CONTENT
        room(copies * len(self.CONTENT))
        assert run(model(ollama, gguf=f"{ollama.url}/files/x", sha256=self.SUM)) is fits
        assert bool(ollama.did("/api/create")) is fits
        assert fits or "needs 33 B and a reserve of 0 B" in run.state["a:1"]["error"]

    @pytest.mark.parametrize(("copies", "fits"), [(1.5, False), (2.5, True)])
    def test_room_for_the_peak_of_a_path(
        self, run: Run, ollama: Ollama, room: Room, copies: float, fits: bool
    ) -> None:
        file = run.root / "x.gguf"
        file.write_bytes(self.CONTENT)
        room(copies * len(self.CONTENT))
        assert run(model(ollama, gguf=str(file), sha256=self.SUM)) is fits
        assert bool(ollama.did("/api/create")) is fits
        assert fits or "needs 22 B and a reserve of 0 B" in run.state["a:1"]["error"]

    def test_room_is_watched_where_nobody_tells_the_size(
        self, run: Run, ollama: Ollama, room: Room
    ) -> None:
        """A file without end would fill the disk."""
        ollama.says["/files/x"] = self.CONTENT
        room(1 << 20)
        assert not run(model(ollama, gguf=f"{ollama.url}/files/x", sha256=self.SUM))
        assert "nothing was fetched" in run.state["a:1"]["error"]

    def test_pipe_is_no_file(self, run: Run, ollama: Ollama, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x")
        assert not run(model(ollama, gguf=str(tmp_path / "x"), sha256=self.SUM))
        assert run.state["a:1"]["error"] == f"{tmp_path / 'x'}: is no file"

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
