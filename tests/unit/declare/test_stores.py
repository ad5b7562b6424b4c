"""Which directory keeps an inventory's secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.declare.stores import open_store, store_of
from fleet.kit.errors import FleetError


@pytest.mark.parametrize(
    ("file", "store"),
    [
        ("inventory/prod.py", "prod"),
        ("inventory/production/hosts.py", "production/hosts"),
        ("inventory/staging/hosts.py", "staging/hosts"),
        ("inventory/sites/../prod.py", "prod"),
        ("tests/lab/fleet.py", "elsewhere/tests/lab/fleet"),
        ("inventory/elsewhere.py", "elsewhere"),
    ],
)
def test_store(file: str, store: str, tmp_path: Path) -> None:
    assert store_of(tmp_path / file, tmp_path) == tmp_path / ".secrets" / store


def test_no_file_and_no_project(tmp_path: Path) -> None:
    project = tmp_path / "project"
    assert store_of(None, project) == project / ".secrets/default"
    outside = tmp_path / "site" / "prod.py"
    store = project / ".secrets/elsewhere" / outside.relative_to("/").with_suffix("")
    assert store_of(outside, project) == store


def test_store_that_several_shared_is_nobodys(tmp_path: Path) -> None:
    shared = tmp_path / ".secrets/hosts"
    shared.mkdir(parents=True)
    file = tmp_path / "inventory/staging/hosts.py"
    with pytest.raises(FleetError, match=f"cp -a {shared} {tmp_path}/.secrets/staging/hosts"):
        store_of(file, tmp_path)
    assert store_of(tmp_path / "inventory/hosts.py", tmp_path) == shared
    own = tmp_path / ".secrets/staging/hosts"
    own.mkdir(parents=True)
    assert store_of(file, tmp_path) == own


@pytest.mark.parametrize("name", ["prod.age", "prod.command"])
def test_what_is_committed_counts_and_is_this_fleets_alone(name: str, tmp_path: Path) -> None:
    committed = tmp_path / "secrets" / "staging" / name
    committed.mkdir(parents=True)
    store = open_store(tmp_path / "inventory/staging/prod.py", tmp_path)
    assert (store.root, store.name) == (committed, "prod")
    for other in ("inventory/prod.py", "inventory/staging.py"):
        store = open_store(tmp_path / other, tmp_path)
        assert store.root == tmp_path / ".secrets" / Path(other).stem


def test_plain_store_beside_another_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secrets" / "prod.age").mkdir(parents=True)
    plain = tmp_path / ".secrets" / "prod"
    plain.mkdir(parents=True)
    file = tmp_path / "inventory/prod.py"
    assert open_store(file, tmp_path).root == tmp_path / "secrets" / "prod.age"
    (plain / "store_id").write_text("x")
    with pytest.raises(FleetError, match=f"in {plain} .plain files. and .*only one can count"):
        open_store(file, tmp_path)
