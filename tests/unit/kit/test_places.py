"""Which directories of a host a service can be given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.kit.facts.places import Place
from fleet.kit.places import Directory, problem_of

MODELS = Directory(
    "ollama_models_dir", "/data/models", "ollama", frozenset({"blobs"}), hidden=("/home",)
)
NOTHING = Place("/data/models", "/data/models")
OURS = replace(
    NOTHING, kind="directory", user="ollama", group="ollama", mode="755", holds=("blobs", "mine")
)
LINKED = replace(NOTHING, resolved="/big")


@pytest.mark.parametrize(
    "place",
    [
        NOTHING,
        OURS,
        LINKED,
        replace(OURS, resolved="/big"),
        # A new disk, and one that root has laid models on.
        replace(OURS, user="root", holds=("lost+found",)),
        replace(OURS, user="root", holds=("blobs", "lost+found")),
        replace(OURS, writers=frozenset({"ollama"}), roots_alone=False),
        # Root's link in the user's own directory.
        replace(NOTHING, resolved="/big", writers=frozenset({"ollama"})),
    ],
)
def test_taken(place: Place) -> None:
    assert problem_of(MODELS, place) is None


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        (replace(LINKED, broken="/data"), ["/data is a link that leads nowhere", "mount what"]),
        (replace(NOTHING, kind="fifo", user="root"), ["is a fifo", "move it away"]),
        (
            replace(LINKED, linked_by=frozenset({"ollama"})),
            ["(which is /big)", "a link of ollama", "have root make it"],
        ),
        (
            replace(NOTHING, writers=frozenset({"ollama", "bob", "the group staff"})),
            ["bob, the group staff can change a directory above it", "namei -l /data/models"],
        ),
        (replace(LINKED, resolved="/home/big"), ["is under /home, which", "use another disk"]),
        (
            replace(OURS, user="postgres"),
            ["belongs to postgres", "chown ollama: /data/models"],
        ),
        (
            replace(OURS, resolved="/etc", user="root", holds=("adduser.conf", "blobs")),
            ["(which is /etc)", "holds adduser.conf, which", "name an empty directory"],
        ),
        (
            replace(OURS, user="root", roots_alone=False, writers=frozenset({"ollama"})),
            ["belongs to root below a directory of ollama", "chown -R ollama: /data/models"],
        ),
    ],
)
def test_refused_with_the_fix(place: Place, parts: list[str]) -> None:
    said = problem_of(MODELS, place)
    assert said is not None
    assert said.startswith("ollama_models_dir = /data/models")
    assert [part for part in parts if part not in said] == [], said


def test_path_without_a_setting_is_named_once() -> None:
    said = problem_of(Directory("/etc/x", "/etc/x"), Place("/etc/x", "/etc/x", kind="fifo"))
    assert said == "/etc/x: is a fifo; move it away, or name another directory"


def test_what_is_in_a_directory_of_root_for_root_is_not_looked_at() -> None:
    place = Place("/srv/b", "/srv/b", "directory", "root", "root", "755", ("anything",))
    assert problem_of(Directory("dify_backup_dir", "/srv/b"), place) is None
