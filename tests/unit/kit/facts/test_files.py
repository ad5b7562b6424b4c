"""What is asked of files."""

from __future__ import annotations

from pathlib import Path

from fleet.kit.facts.files import FileState, FileStates
from tests.unit.facts import ask


class TestFileStates:
    def test_regular_files_only(self, tmp_path: Path) -> None:
        plain, spaced = tmp_path / "plain", tmp_path / "with 'spaces' and $x"
        plain.write_text("hello\n")
        plain.chmod(0o640)
        spaced.write_text("")
        spaced.chmod(0o755)
        link = tmp_path / "link"
        link.symlink_to(plain)
        asked = [str(path) for path in (plain, spaced, link, tmp_path, tmp_path / "missing")]
        user, group = plain.owner(), plain.group()
        assert ask(FileStates(), paths=asked) == {
            str(plain): FileState(
                "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
                "640",
                user,
                group,
            ),
            str(spaced): FileState(
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "755",
                user,
                group,
            ),
        }

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert ask(FileStates(), paths=[str(tmp_path / "missing")]) == {}

    def test_owners_of_a_real_host(self) -> None:
        line = f"{'a' * 64} 600 root www-data /etc/llm-fleet/keys.conf"
        assert FileStates().process([line]) == {
            "/etc/llm-fleet/keys.conf": FileState("a" * 64, "600", "root", "www-data")
        }
