"""Which directory is the operator's."""

from __future__ import annotations

from pathlib import Path

import pyinfra
import pytest

from fleet.declare import project
from fleet.declare.fleet import PROJECT_ROOT
from fleet.declare.project import enter, project_of
from fleet.kit.errors import FleetError


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return made(tmp_path / "site")


def made(folder: Path) -> Path:
    (folder / "inventory").mkdir(parents=True)
    for name in ("config.py", "deploy.py"):
        (folder / name).touch()
    return folder


def test_where_the_process_is_comes_first(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... as it does for pyinfra; then where the inventory is, then the checkout."""
    other = made(tmp_path / "other") / "inventory" / "prod.py"
    for folder in (site, site / "inventory"):
        monkeypatch.chdir(folder)
        assert project_of(other) == site
        assert project_of(None) == site
    monkeypatch.chdir(tmp_path)
    assert project_of(other) == other.parents[1]
    assert project_of(Path("other/inventory/prod.py")) == other.parents[1]
    assert project_of(tmp_path / "hosts.py") == PROJECT_ROOT
    (site / "config.py").unlink()
    monkeypatch.chdir(site)
    assert project_of(None) == PROJECT_ROOT


def test_installed_product_is_nobodys_directory(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = made(tmp_path / "llm_fleet_product")
    (product / "COMMIT").touch()
    monkeypatch.setattr(project, "PROJECT_ROOT", product)
    monkeypatch.chdir(product)
    with pytest.raises(FleetError, match="no fleet's directory; run this in the directory that"):
        project_of(None)
    assert project_of(site / "inventory" / "prod.py") == site


def test_pyinfra_has_to_run_our_config(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that only looks right has settings and a login that nobody has read."""
    monkeypatch.setattr(pyinfra, "is_cli", True)
    monkeypatch.setattr(project, "_entered", [])
    monkeypatch.chdir(site)
    with pytest.raises(FleetError, match=f"run pyinfra in {PROJECT_ROOT} or in a directory"):
        project_of(site / "inventory" / "prod.py")
    enter()
    assert project_of(site / "inventory" / "prod.py") == site
    monkeypatch.chdir(site / "inventory")
    with pytest.raises(FleetError, match="or group_data there is not read"):
        project_of(Path("prod.py"))
