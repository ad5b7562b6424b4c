"""A small project that pyinfra deploys on this machine, to see a run from outside."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from fleet.declare.fleet import Fleet, FleetHost
from fleet.kit.secrets import SecretStore
from fleet.operate.run import Run

HERE, NOWHERE = "@local", "127.0.0.1"

_CONFIG = """\
import click
from fleet.kit.command_line import guard
from fleet.kit.events import tell_run
tell_run(click.get_current_context())
guard(click.get_current_context())
"""
_INVENTORY = f"""\
hosts = ["{HERE}", ("{NOWHERE}", {{"ssh_port": 1}})]
"""
_HEAD = """\
from pyinfra import host, logger
from pyinfra.api import operation
from pyinfra.operations import server
from fleet.kit.events import tell_restart
from fleet.kit.outlook import tell_restarts
from fleet.kit.planned import Restart, will_restart
"""


class Project:
    """A directory with an inventory, a config.py and a deploy.py of the statements `deploy`."""

    def __init__(self, root: Path, names: tuple[str, ...] = (HERE, NOWHERE)) -> None:
        self.root, self.names = root, names
        self.inventory = root / "site.py"
        self.inventory.write_text(_INVENTORY)
        (root / "config.py").write_text(_CONFIG)

    def run(self, deploy: str, *options: str) -> Run:
        """A run of it that has not begun yet."""
        fleet = self.declared(deploy)
        hosts = [host for host in fleet if host.name in self.names]
        return Run(fleet, self.inventory, hosts, options)

    def declared(self, deploy: str) -> Fleet:
        """Its fleet, once `deploy` is what it does."""
        (self.root / "deploy.py").write_text(_HEAD + dedent(deploy))
        hosts = [FleetHost(name, frozenset(), name, (), frozenset()) for name in (HERE, NOWHERE)]
        return Fleet(hosts, (), SecretStore(self.root / "secrets"), self.root)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Project(tmp_path, (HERE,))
