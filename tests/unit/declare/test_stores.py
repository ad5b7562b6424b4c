"""Which directory keeps an inventory's secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.declare.stores import store_of
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
