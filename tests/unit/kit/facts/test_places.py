"""What is asked of directories that services are given: on the disk of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet.kit.facts.places import Place, Places
from tests.unit.facts import ask

# What `namei -l` says above a test's directory is this machine's own.
_SEEN = """\
place=/var/lib/ollama/models
real=/big/models
step=f: /var/lib/ollama/models
step=drwxr-xr-x root   root   /
step=drwxr-xr-x root   root   var
step=drwxr-xr-x root   root   lib
step=drwxr-x--- ollama ollama ollama
step=lrwxrwxrwx {link} models -> /big/models
step=drwxr-xr-x root   root     /
step=drwxr-xr-x root   root     big
step=drwxr-xr-x ollama ollama   models
last=f: /big/models
last=drwxr-xr-x root   root   /
last=drwxr-xr-x {above} big
last=drwxr-xr-x ollama ollama models
is=ollama ollama 755 directory
holds=blobs
"""


def seen(link: str = "root root", above: str = "root root") -> Place:
    lines = _SEEN.format(link=link, above=above).splitlines()
    [place] = Places().process(lines).values()
    return place


class TestAsked:
    def at(self, path: Path) -> Place:
        return ask(Places(), paths=[str(path)])[str(path)]

    def test_directory_and_what_it_holds(self, tmp_path: Path) -> None:
        (tmp_path / "a name").touch()
        place = self.at(tmp_path)
        assert (place.path, place.resolved, place.broken) == (str(tmp_path), str(tmp_path), None)
        assert place.is_directory
        assert (place.user, place.group) == (tmp_path.owner(), tmp_path.group())
        assert place.holds == ("a name",)

    def test_nothing_there_yet(self, tmp_path: Path) -> None:
        place = self.at(tmp_path / "a" / "b")
        assert (place.kind, place.resolved, place.broken) == ("", str(tmp_path / "a" / "b"), None)

    def test_link_on_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "disk")
        place = self.at(tmp_path / "link" / "models")
        assert place.resolved == str(tmp_path / "disk" / "models")
        assert place.paths == (str(tmp_path / "link" / "models"), str(tmp_path / "disk" / "models"))
        assert place.broken is None

    @pytest.mark.parametrize("below", ["", "models"])
    def test_link_that_leads_nowhere(self, below: str, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to("nowhere")
        assert self.at(link / below).broken == str(link)

    def test_link_that_leads_to_itself(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to("link")
        assert self.at(link).broken == str(link)

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        os.mkfifo(tmp_path / "pipe")
        assert self.at(tmp_path / "file").kind == "regular file"
        assert self.at(tmp_path / "pipe").kind == "fifo"

    def test_two_at_once(self, tmp_path: Path) -> None:
        paths = [str(tmp_path / "a"), str(tmp_path)]
        assert list(ask(Places(), paths=paths)) == paths

    def test_open_directory_above_is_noticed(self, tmp_path: Path) -> None:
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        place = self.at(tmp_path / "open" / "models")
        assert "everybody" in place.writers
        assert not place.roots_alone


class TestWay:
    def test_roots_own_link_below_a_users_directory(self) -> None:
        """The user can turn the link, but not what is written down now."""
        place = seen()
        assert place.writers == {"ollama"}
        assert place.linked_by == set()
        assert place.roots_alone

    def test_users_own_link(self) -> None:
        assert seen(link="ollama ollama").linked_by == {"ollama"}

    def test_somebody_elses_directory_at_the_end(self) -> None:
        place = seen(above="bob bob")
        assert place.writers == {"ollama", "bob"}
        assert not place.roots_alone
