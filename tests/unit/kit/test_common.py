"""What every program on a host stands on: files that are whole, commands, one lock."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import common
from common import CommandError, ProgramError, locked, log, make_directory, run, say, sha256, write


def test_answers_and_the_rest_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    say("an answer")
    log("no answer")
    assert capsys.readouterr() == ("an answer\n", "no answer\n")


def test_nothing_that_a_terminal_obeys_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    for tell in (say, log):
        tell("api:\tmödel \x1b]0;title\x07\x1b[2J\u202e\nnext")
    assert {*capsys.readouterr()} == {"api:\tmödel \ufffd]0;title\ufffd\ufffd[2J\ufffd\nnext\n"}


class TestWrite:
    @pytest.mark.parametrize("mode", [0o600, 0o644])
    def test_whole_and_for_whom(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "new" / "file"
        write(path, "one", mode)
        write(path, "two", mode)
        assert path.read_text() == "two"
        assert path.stat().st_mode & 0o777 == mode
        assert list(path.parent.iterdir()) == [path]

    def test_that_fails_leaves_what_was_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "file"
        write(path, "one")

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write(path, "two")
        assert path.read_text() == "one"
        assert list(tmp_path.iterdir()) == [path]


class TestRun:
    def test_what_it_printed(self, tmp_path: Path) -> None:
        (tmp_path / "in").write_text("said")
        with (tmp_path / "in").open("rb") as file:
            assert run("sh", "-c", "pwd; cat", cwd=tmp_path, stdin=file) == f"{tmp_path}\nsaid"

    def test_failure_ends_with_what_it_said(self) -> None:
        with pytest.raises(CommandError) as caught:
            run("sh", "-c", "seq 9 >&2; exit 3")
        assert str(caught.value).endswith(": exit 3: 4 | 5 | 6 | 7 | 8 | 9")


class TestMakeDirectory:
    @pytest.fixture(autouse=True)
    def _private_umask(self) -> Iterator[None]:
        """As units of ours have it."""
        before = os.umask(0o077)
        yield
        os.umask(before)

    def test_missing_parents_are_open_to_others(self, tmp_path: Path) -> None:
        """... who may keep their own below them: a model store beside a backup."""
        path = tmp_path / "data" / "backups" / "webui"
        for _ in range(2):
            make_directory(path, 0o700)
        modes = [item.stat().st_mode & 0o777 for item in (path.parents[1], path.parent, path)]
        assert modes == [0o755, 0o755, 0o700]

    def test_what_is_there_stays_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir(mode=0o700)
        make_directory(tmp_path / "data" / "new")
        make_directory(tmp_path / "data")
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / "new").stat().st_mode & 0o777 == 0o755


def test_sha256_of_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "BLOCK", 1)
    path, parts = tmp_path / "file", []
    path.write_bytes(b"0123456789")
    assert sha256(path, parts.append) == hashlib.sha256(b"0123456789").hexdigest()
    assert parts == [4, 4, 2]


class TestLock:
    def test_held_by_another(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        with locked(path, None) as first, locked(path, None) as second:
            assert (first, second) == (True, False)
        with locked(path, None) as free:
            assert free

    def test_what_cannot_be_one(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "target")
        (tmp_path / "directory").mkdir()
        for name in ("link", "directory"):
            with (
                pytest.raises(ProgramError, match="cannot be the lock"),
                locked(tmp_path / name, None),
            ):
                pass
        assert not (tmp_path / "target").exists()
        os.mkfifo(tmp_path / "pipe")
        with locked(tmp_path / "pipe", None) as held:
            assert held

    def test_waited_for(self, tmp_path: Path) -> None:
        """... after it was said once."""
        path, said, end = tmp_path / "lock", [], threading.Event()

        def waits() -> None:
            said.append("waits")
            end.set()

        def second() -> None:
            with locked(path, waits) as held:
                said.append(f"held: {held}")

        thread = threading.Thread(target=second)
        with locked(path, None):
            thread.start()
            assert end.wait(5)
            assert said == ["waits"]
        thread.join()
        assert said == ["waits", "held: True"]
