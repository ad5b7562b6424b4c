"""Which directory is the operator's."""

from __future__ import annotations

from pathlib import Path

import pyinfra
import pytest

from fleet.declare import project
from fleet.declare.fleet import PRODUCT_ROOT
from fleet.declare.project import enter, project_of
from fleet.kit.errors import FleetError

_OURS = "import llm_fleet\n"
_FOREIGN = ("", "from pyinfra import config\n", "# import llm_fleet\n", "import fleetctl\n")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return made(tmp_path / "site")


def made(folder: Path, config: str = _OURS, deploy: str = _OURS) -> Path:
    (folder / "inventory").mkdir(parents=True)
    (folder / "config.py").write_text(config)
    (folder / "deploy.py").write_text(deploy)
    return folder


def test_where_the_inventory_is_comes_first(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... then where the process is, then the checkout."""
    other = made(tmp_path / "other") / "inventory" / "prod.py"
    for folder in (site, site / "inventory"):
        monkeypatch.chdir(folder)
        assert project_of(other) == other.parents[1]
        assert project_of(tmp_path / "hosts.py") == site
        assert project_of(None) == site
    monkeypatch.chdir(tmp_path)
    assert project_of(other) == other.parents[1]
    assert project_of(Path("other/inventory/prod.py")) == other.parents[1]
    assert project_of(tmp_path / "hosts.py") == PRODUCT_ROOT
    (site / "config.py").unlink()
    monkeypatch.chdir(site)
    assert project_of(None) == PRODUCT_ROOT


def test_a_link_is_where_it_lies(site: Path, tmp_path: Path) -> None:
    """... and where it leads to, when nobody's directory has it."""
    inventory = made(tmp_path / "other") / "inventory" / "prod.py"
    inventory.touch()
    for folder, found in ((site, site), (tmp_path, inventory.parents[1])):
        link = folder / "linked.py"
        link.symlink_to(inventory)
        assert project_of(link) == found


@pytest.mark.parametrize(
    ("config", "deploy"),
    [*((text, _OURS) for text in _FOREIGN), *((_OURS, text) for text in _FOREIGN)],
)
def test_another_project_of_pyinfra_is_not_ours(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, deploy: str
) -> None:
    """... or its deploy.py would be executed on our hosts, with --yes before anybody sees it."""
    foreign = made(tmp_path / "foreign", config, deploy)
    for folder in (foreign, foreign / "inventory"):
        monkeypatch.chdir(folder)
        assert project_of(site / "inventory" / "prod.py") == site
        assert project_of(foreign / "inventory" / "prod.py") == PRODUCT_ROOT
        assert project_of(None) == PRODUCT_ROOT


@pytest.mark.parametrize("ours", [PRODUCT_ROOT, PRODUCT_ROOT / "fleet" / "operate" / "starter"])
def test_ours_are_known(tmp_path: Path, ours: Path) -> None:
    texts = [(ours / name).read_text() for name in ("config.py", "deploy.py")]
    folder = made(tmp_path / "ours", *texts)
    assert project_of(folder / "inventory" / "prod.py") == folder


def test_installed_product_is_nobodys_directory(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = made(tmp_path / "llm_fleet_product")
    (product / "COMMIT").touch()
    monkeypatch.setattr(project, "PRODUCT_ROOT", product)
    monkeypatch.chdir(product)
    with pytest.raises(FleetError, match="no fleet's directory; run this in the directory that"):
        project_of(None)
    assert project_of(site / "inventory" / "prod.py") == site


def test_pyinfra_has_to_run_our_config(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that only looks right has settings and a login that nobody has read."""
    monkeypatch.setattr(pyinfra, "is_cli", True)
    monkeypatch.setattr(project, "_entered", [])
    monkeypatch.chdir(site)
    with pytest.raises(FleetError, match=f"run pyinfra in {PRODUCT_ROOT} or in a directory"):
        project_of(site / "inventory" / "prod.py")
    enter()
    assert project_of(site / "inventory" / "prod.py") == site
    monkeypatch.chdir(site / "inventory")
    with pytest.raises(FleetError, match="or group_data there is not read"):
        project_of(Path("prod.py"))
