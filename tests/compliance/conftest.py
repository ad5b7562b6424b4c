"""Compliance of an inventory's hosts with what is declared for them: `make verify`.

Read-only. Each test's docstring is a claim, and becomes a row of the table at the end.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import FleetHost
from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.driver.settings import Driver
from fleet.gateway.settings import Gateway
from fleet.kit.errors import FleetError
from fleet.ollama.instances import bind_gpus
from fleet.ollama.servers import Instance, instances_of

from . import results, table
from .connection import Connections, Target
from .outcomes import Outcome, measured, note_unchecked, outcome_of, record, warns
from .redaction import blank
from .selection import selected

__all__ = ["measured", "record", "warns"]


def _roles() -> dict[str, Callable[[FleetHost], bool]]:
    """A check's argument to the hosts that it is about: all, or those that have a capability.

    `gpu_host` is one of the group `gpu`, and `docker_host` one where docker is switched on. The
    declared ones need not be reached.
    """
    roles: dict[str, Callable[[FleetHost], bool]] = {
        "each_host": lambda host: True,
        "declared_host": lambda host: True,
        # Of the group `gpu`, and of `vllm`.
        "driven_host": partial(FleetHost.runs, kind=Driver),
        "declared_gateway": partial(FleetHost.runs, kind=Gateway),
    }
    for item in CAPABILITIES:
        if item.group or item.switch:
            name = item.group or item.settings.prefix.removesuffix("_")
            roles.setdefault(f"{name}_host", partial(FleetHost.runs, kind=item.settings))
    return roles


_ROLES = _roles()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--inventory",
        type=Path,
        default=Path(os.environ.get("INVENTORY", "inventory/lab.py")),
        help="The inventory whose hosts are checked.",
    )

    parser.addoption(
        "--all-blobs",
        action="store_true",
        help="Hash every file of every declared model, whatever its size.",
    )
    parser.addoption(
        "--hash-up-to",
        type=int,
        default=512,
        metavar="MB",
        help="Hash files of models up to this size; of larger ones, ask whether they changed.",
    )
    parser.addoption(
        "--full-scan",
        action="store_true",
        help="Try every TCP port of every host from here, not only the well-known ones.",
    )
    parser.addoption(
        "--scan-rate",
        type=float,
        default=1000,
        help="Connections a second, for each host, that the port scan makes (1000).",
    )
    parser.addoption("--json", type=Path, help="Also write all results to this file, as JSON.")
    parser.addoption(
        "--jobs", type=int, default=4, help="Hosts that are looked into at a time, with -n auto."
    )
    parser.addoption(
        "--only",
        action="append",
        default=[],
        metavar="HOST|GROUP",
        help="Check this host, or the hosts of this group, and no other; may be repeated.",
    )


def pytest_configure(config: pytest.Config) -> None:
    _open(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """No more than there are hosts: each reads everything anew. One needs none but this process."""
    workers = min(config.getoption("--jobs"), len(_open(config)))
    return workers if workers > 1 else 0


def _open(config: pytest.Config) -> list[FleetHost]:
    """The hosts that are asked for; the inventory is read once."""
    if _HOSTS not in config.stash:
        try:
            config.stash[_CONNECTIONS] = Connections(config.getoption("--inventory"))
            fleet = config.stash[_CONNECTIONS].fleet
            config.stash[_HOSTS] = selected(fleet, config.getoption("--only"))
        except (FleetError, SystemExit) as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_HOSTS]


_CONNECTIONS = pytest.StashKey[Connections]()
_HOSTS = pytest.StashKey[list[FleetHost]]()


def pytest_unconfigure(config: pytest.Config) -> None:
    if _CONNECTIONS in config.stash:
        config.stash[_CONNECTIONS].close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    selection = metafunc.config.stash[_HOSTS]
    for name, holds in _ROLES.items():
        if name in metafunc.fixturenames:
            hosts = [
                # One worker, and so one connection, for all checks of a host.
                pytest.param(host, id=host.name, marks=pytest.mark.xdist_group(host.name))
                for host in selection
                if holds(host)
            ]
            metafunc.parametrize(name, hosts, indirect=True)
    if "instance" in metafunc.fixturenames:
        servers = [
            pytest.param(
                (host, item),
                id="/".join(filter(None, (host.name, item.name))),
                marks=pytest.mark.xdist_group(host.name),
            )
            for host in selection
            for item in instances_of(host)
        ]
        metafunc.parametrize("instance", servers, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # A claim about a role that no host has is no claim about this fleet.
    empty = [item for item in items if _is_about_nobody(item)]
    if empty:
        config.hook.pytest_deselected(items=empty)
        items[:] = [item for item in items if item not in empty]
    for item in items:
        assert isinstance(item, pytest.Function)
        claim = (item.function.__doc__ or item.name).strip().split("\n")[0].rstrip(".")
        item.user_properties += [
            ("capability", item.path.stem.removeprefix("test_")),
            ("claim", claim),
            ("host", _host(item).name),
            ("case", item.callspec.id),
        ]


def _host(item: pytest.Function) -> FleetHost:
    """The host that a check is about, itself or with one of its Ollama servers."""
    params = item.callspec.params
    found: Any = next(params[role] for role in (*_ROLES, "instance") if role in params)
    host: FleetHost = found[0] if isinstance(found, tuple) else found
    return host


def _is_about_nobody(item: pytest.Item) -> bool:
    assert isinstance(item, pytest.Function)
    return not isinstance(_host(item), FleetHost)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    note_unchecked(report, call)
    if report.when == "call" or not report.passed:
        blank(report, item.config.stash[_CONNECTIONS].secret_words)
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    if report.when == "call" or report.skipped:
        outcome = outcome_of(report)
        if outcome in (Outcome.UNCHECKED, Outcome.WARNED):
            return outcome.value, outcome.value[0], outcome.value.upper()
    return None


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    reports = [
        report
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport)
    ]
    checks = results.checks_of(reports)
    if path := config.getoption("--json"):
        found = results.to_object(
            checks,
            results.records_of(reports),
            config.stash[_CONNECTIONS].fleet,
            config.getoption("--inventory"),
            _selection(config),
        )
        path.write_text(json.dumps(found, indent=2))
    terminalreporter.section("compliance")
    for color, line in table.render(checks):
        terminalreporter.line(line, **({color: True} if color else {}))
    terminalreporter.line(table.summary(checks))


def _selection(config: pytest.Config) -> results.Selection:
    asked = {host.name for host in _open(config)}
    files = [Path(name) for name in config.args if name.endswith(".py")]
    capabilities = [path.stem.removeprefix("test_") for path in files]
    return results.Selection(
        names=tuple(config.getoption("--only")),
        capabilities=tuple(name for name in capabilities if name != results.REACH),
        left_out=tuple(
            host.name for host in config.stash[_CONNECTIONS].fleet if host.name not in asked
        ),
    )


@pytest.fixture(scope="session")
def connections(request: pytest.FixtureRequest) -> Connections:
    return request.config.stash[_CONNECTIONS]


def _fixture_of(role: str) -> Callable[..., Target | FleetHost]:
    @pytest.fixture(scope="session", name=role)
    def host_of_role(
        request: pytest.FixtureRequest, connections: Connections
    ) -> Target | FleetHost:
        declared: FleetHost = request.param
        return declared if role.startswith("declared_") else Target(connections, declared)

    return host_of_role


# pytest takes for a fixture what is one by the name of a module's own.
globals().update({role: _fixture_of(role) for role in _ROLES})


@dataclass(frozen=True)
class Server:
    """One Ollama server of a host under test."""

    target: Target
    declared: Instance

    @property
    def uuids(self) -> tuple[str, ...]:
        """The GPUs that it is to have, as the host names them."""
        instances = instances_of(self.target.declared)
        present, hardware = self.target.fact(DrivenGpus), self.target.fact(GpuHardwareFact)
        return bind_gpus(instances, present, hardware)[self.declared.name]

    @property
    def label(self) -> str:
        """What a figure for the table begins with, where a host has several."""
        return f"{self.declared.name}: " if self.declared.name else ""


@pytest.fixture(scope="session")
def instance(request: pytest.FixtureRequest, connections: Connections) -> Server:
    declared, item = request.param
    return Server(Target(connections, declared), item)


def can_connect(address: str, port: int, timeout: float = 3.0) -> bool:
    """Whether this machine opens a TCP connection; a filtered port is a no after `timeout`."""
    try:
        with socket.create_connection((address, port), timeout):
            return True
    except OSError:
        return False
