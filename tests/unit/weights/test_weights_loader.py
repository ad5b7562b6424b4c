"""Weights fetched from a hub that misbehaves: whole in the end, or refused in words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import transfer
from lab.upstream.faults import Fault
from lab.upstream.hub import Hub
from tests.unit.weights.hub_rig import FILES, LARGE, REPOSITORY, Site

MB = 1_000_000
LINKED = "original/model.safetensors"


class TestFetch:
    def test_all_files_and_nothing_else(self, site: Site) -> None:
        assert site.run()
        site.assert_whole()
        assert site.state["toy"] | {"attempts": 0} == {
            "phase": "ready", "completed": 6_000_022, "total": 6_000_022, "rate": 0, "error": "",
            "attempts": 0, "left": None,
        }  # fmt: skip
        assert site.check()["pending"] == {}
        assert site.check()["to_fetch"] == 0

    def test_everybody_can_read_them(self, site: Site) -> None:
        old = os.umask(0o022)
        try:
            assert site.run()
        finally:
            os.umask(old)
        modes = {path: path.stat().st_mode & 0o777 for path in site.root.rglob("*")}
        folders = {path for path in modes if path.is_dir()}
        assert {modes[path] for path in folders} == {0o755}
        assert {modes[path] for path in site.folder.rglob("*") if path.is_file()} == {0o644}

    def test_second_run_asks_nobody(self, site: Site) -> None:
        assert site.run()
        site.hub.seen.clear()
        assert site.run()
        assert site.hub.seen == []

    def test_killed_in_the_middle_goes_on_from_there(self, site: Site) -> None:
        site.break_link(rate=8 * MB, rate_from=2 * MB)
        process = site.start()
        site.wait_for(3 * MB, process)
        process.kill()
        process.communicate()
        assert not site.folder.exists()
        site.hub.faults.list.clear()
        code, said = site.program()
        assert code == 0, said
        asked = [
            headers["Range"] for _, path, headers in site.hub.storage.seen
            if path.startswith(site.storage_path)
        ]  # fmt: skip
        first = int(asked[-1].removeprefix("bytes=").rstrip("-"))
        assert first >= 3 * MB
        site.assert_whole()

    def test_killed_while_it_hashes_goes_on_with_hashing(self, site: Site) -> None:
        incomplete = site.part / "incomplete" / site.storage_path[1:]
        incomplete.parent.mkdir(parents=True)
        incomplete.write_bytes(LARGE)
        assert site.run()
        assert site.served() == 0
        site.assert_whole()

    def test_cut_connections_are_gone_on_with(self, site: Site) -> None:
        site.break_link(cut_at=2 * MB, times=2)
        assert site.run()
        site.assert_whole()

    def test_stall_is_given_up_and_gone_on_with(self, site: Site) -> None:
        site.limits["no_progress"] = 1
        site.break_link(stall_at=2 * MB, times=1)
        assert site.run()
        site.assert_whole()
        assert site.state["toy"]["attempts"] == 2

    def test_server_without_ranges(self, site: Site) -> None:
        """What is sent anew from its beginning is taken from there."""
        incomplete = site.part / "incomplete" / site.storage_path[1:]
        incomplete.parent.mkdir(parents=True)
        incomplete.write_bytes(b"x" * MB)
        site.hub.storage.knows_ranges = False
        assert site.run()
        site.assert_whole()


class TestWrongBytes:
    def test_of_the_right_size_are_never_taken(self, site: Site) -> None:
        site.break_link(wrong_at=5 * MB)
        assert not site.run()
        assert not site.folder.exists()
        assert "serves other bytes" in site.state["toy"]["error"]
        assert site.served() <= 2 * len(LARGE), "it is not fetched again and again"
        site.hub.faults.list.clear()
        assert site.run(), site.state
        site.assert_whole()

    def test_in_what_an_earlier_run_left_are_begun_anew(self, site: Site) -> None:
        incomplete = site.part / "incomplete" / site.storage_path[1:]
        incomplete.parent.mkdir(parents=True)
        incomplete.write_bytes(b"x" * MB)
        assert site.run(), site.state
        site.assert_whole()

    def test_short_body_is_asked_for_the_rest(self, site: Site) -> None:
        site.break_link(size=4 * MB, times=1)
        assert not site.run()
        assert "has 4000000 bytes, the lock says 6000000" in site.state["toy"]["error"]

    def test_longer_than_it_should_be(self, site: Site) -> None:
        entry = site.entry()
        entry["files"][2]["size"] -= 5
        assert not site.run(entry)
        assert "has 6000000 bytes, the lock says 5999995" in site.state["toy"]["error"]
        assert site.served() < MB


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"revision": "0" * 40}, "has no such revision"),
            ({"repository": "openai/none"}, "there is no such repository, or it is private"),
            (
                {"files": [{"path": "gone.bin", "size": 3, "sha256": "0" * 64}]},
                "gone.bin: 404 .* has no such file at this revision",
            ),
        ],
    )
    def test_what_the_hub_has_not(self, site: Site, change: dict[str, Any], words: str) -> None:
        assert not site.run(site.entry(**change))
        assert re.search(words, site.state["toy"]["error"])
        assert site.state["toy"]["attempts"] == 1, "asking again would not help"

    def test_busy_hub_is_asked_again_when_it_says(self, site: Site) -> None:
        site.limits["longest_delay"] = 2
        site.hub.faults.list = [Fault(path=r"/openai/toy/resolve/.*", status=429, times=1)]
        began = time.monotonic()
        assert site.run()
        assert time.monotonic() - began >= 1, "it asked for a second, and nothing else waits"
        assert site.state["toy"]["attempts"] == 2

    def test_hub_that_stays_away(self, site: Site) -> None:
        site.hub.faults.list = [Fault(path=r"/openai/toy/resolve/.*", status=503)]
        assert not site.run()
        assert (
            "503 Service Unavailable: the hub is out of service for now"
            in (site.state["toy"]["error"])
        )
        assert site.state["toy"]["attempts"] == 3

    def test_one_that_fails_keeps_no_other_away(self, site: Site) -> None:
        bad = site.entry(name="bad", revision="0" * 40)
        assert not site.run(bad, site.entry())
        assert {name: item["phase"] for name, item in site.state.items()} == {
            "bad": "failed", "toy": "ready",
        }  # fmt: skip
        site.assert_whole()


class TestToken:
    TOKEN = "hf_" + "Secret" * 5

    @pytest.fixture
    def gated(self, site: Site, tmp_path: Path) -> dict[str, str]:
        """Have the repository gated; what the unit is given."""
        site.hub.publish(REPOSITORY, FILES, token=self.TOKEN)
        site.changes = {"weights": [site.entry(token=True)]}
        (tmp_path / "credentials").mkdir()
        (tmp_path / "credentials" / "token").write_text(f"{self.TOKEN}\n")
        return {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}

    def test_is_sent_to_the_hub_alone(self, site: Site, gated: dict[str, str]) -> None:
        code, said = site.program(**gated)
        assert code == 0, said
        assert {item[2].get("Authorization") for item in site.hub.seen} == {f"Bearer {self.TOKEN}"}
        assert site.hub.storage.seen
        assert not [item for item in site.hub.storage.seen if "Authorization" in item[2]]

    def test_is_in_no_log_and_no_file(self, site: Site, gated: dict[str, str]) -> None:
        site.break_link(status=500)
        code, said = site.program(**gated)
        assert code == 1
        texts = [path.read_bytes() for path in site.root.parent.rglob("*.json")]
        assert self.TOKEN not in said
        assert not [text for text in texts if self.TOKEN.encode() in text]

    def test_gated_without_one(self, site: Site, gated: dict[str, str]) -> None:
        code, said = site.program(CREDENTIALS_DIRECTORY="")
        assert code == 1
        assert "the repository is gated: accept its terms" in said
        assert "weights_token" in said


class TestRoom:
    def test_is_judged_before_the_first_byte(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told = SimpleNamespace(f_bavail=5 * MB, f_frsize=1)
        monkeypatch.setattr(transfer.os, "statvfs", lambda _: told)
        assert not site.run()
        assert site.state["toy"]["error"].startswith("needs 6.0 MB and a reserve of 0 B, but 5.0 ")
        assert site.hub.seen == []

    def test_full_disk_ends_the_run_in_words(self, site: Site) -> None:
        """A file system with bytes, and without a place for one more file."""
        script = 'mount -t tmpfs -o size=64m,nr_inodes=4 none "$1" && shift && exec "$@"'
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh",
             site.root, *site.command()],
            env=site.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "No space left on device; make room there" in done.stderr


class TestWhatIsThere:
    def test_changed_byte_is_found_and_fetched_again(self, site: Site) -> None:
        assert site.run()
        with site.large.open("r+b") as file:
            file.write(b"\0")
        pending = site.check()["pending"]
        assert pending == {"toy": f"has files that changed since they were hashed: {LINKED}"}
        assert site.check()["to_fetch"] == len(LARGE)
        assert site.run()
        site.assert_whole()
        assert site.large.read_bytes() == LARGE

    def test_touched_file_is_hashed_and_kept(self, site: Site) -> None:
        assert site.run()
        os.utime(site.large)
        site.hub.seen.clear()
        assert site.check()["pending"]
        assert site.run()
        assert site.hub.seen == []
        assert site.check()["pending"] == {}

    @pytest.mark.parametrize(
        "damage",
        [
            lambda site: (site.folder / "more").write_text("x"),
            lambda site: (site.folder / "more").symlink_to("/etc/passwd"),
            lambda site: (site.folder / "a/b").mkdir(parents=True),
            lambda site: os.mkfifo(site.folder / "pipe"),
            lambda site: site.large.unlink(),
            lambda site: site.large.rename(site.folder / "other"),
            lambda site: site.large.chmod(0o600),
        ],
    )
    def test_is_brought_back_to_the_lock(
        self, site: Site, damage: Callable[[Site], object]
    ) -> None:
        assert site.run()
        damage(site)
        assert site.check()["pending"]
        assert site.run(), site.state
        site.assert_whole()
        assert site.check()["pending"] == {}
        assert not [path for path in site.folder.rglob("*") if path.is_symlink()]

    def test_without_its_memory_it_is_hashed_and_not_fetched(self, site: Site) -> None:
        assert site.run()
        (site.root / ".llm-fleet-weights.json").write_text("{")
        site.hub.seen.clear()
        assert site.run()
        assert site.hub.seen == []

    def test_another_revision_shares_what_is_the_same(self, site: Site) -> None:
        assert site.run()
        before = site.folder
        first = site.entry()
        site.hub.publish(REPOSITORY, {**FILES, "config.json": b"{}"})
        site.hub.faults.served.clear()
        assert site.check()["to_fetch"] == 2
        assert site.run()
        site.assert_whole()
        assert site.served() == 0
        assert site.large.samefile(before / LINKED)
        assert site.check(first)["pending"] == {}, "and what was there is still known"


class TestPrune:
    def test_what_is_not_declared_goes_when_that_is_wanted(self, site: Site) -> None:
        assert site.run()
        name = f"toy/{site.repository.commit}"
        old = site.folder
        site.hub.publish(REPOSITORY, {**FILES, "config.json": b"{}"})
        assert site.run()
        undeclared = site.check()["undeclared"]
        assert list(undeclared) == [name]
        code, said = site.program("--prune")
        assert code == 0, said
        assert old.exists()
        site.changes = {"prune": True}
        code, said = site.program("--prune")
        assert (code, said) == (0, f"{name}: was not declared, removed\n")
        assert not old.exists()
        assert site.check()["pending"] == {}, "what it shared is still known as right"

    def test_the_last_of_a_name(self, site: Site) -> None:
        assert site.run(site.entry(name="old"), site.entry())
        site.changes = {"prune": True}
        code, said = site.program("--prune")
        assert code == 0, said
        assert not (site.root / "old").exists()

    def test_what_somebody_else_has_put_there_stays(self, site: Site) -> None:
        (site.root / "mine").mkdir()
        (site.root / "mine" / "notes").write_text("x")
        (site.root / "lost+found").mkdir()
        site.changes = {"prune": True}
        assert site.run()
        assert site.program("--prune")[0] == 0
        assert (site.root / "mine" / "notes").exists()
        assert (site.root / "lost+found").exists()

    def test_fetches_that_nobody_wants_any_more_go(self, site: Site) -> None:
        site.break_link(cut_at=2 * MB)
        site.limits["attempts"] = 1
        assert not site.run()
        old = site.part
        assert old.exists()
        site.hub.faults.list.clear()
        site.hub.publish(REPOSITORY, {**FILES, "config.json": b"{}"})
        assert str(site.root) in site.check()["pending"]
        assert site.run()
        assert not old.exists()


def test_program_checks_by_its_configuration(site: Site) -> None:
    code, said = site.program("--check")
    assert code == 0
    assert json.loads(said)["pending"] == {"toy": "is not there"}
    assert json.loads(said)["to_fetch"] == 6_000_022


def test_modelscope(site: Site, hub: Hub) -> None:
    assert site.run(site.entry(source="modelscope"))
    site.assert_whole()
    assert {path.partition("?")[0] for _, path, _ in hub.seen} == {"/api/v1/models/openai/toy/repo"}
