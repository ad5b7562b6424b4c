"""What of Docker is refused, and its configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.docker.settings import Docker, docker_configuration
from tests.fleets import (
    ALTERNATIVE_CONTAINERS,
    Hosts,
    fleet_of,
)
from tests.unit.exposing import exposing
from tests.unit.refusals import assert_refused, pair

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "compose that is too old": (
        {"box": ("", {"docker_enabled": True, "docker_compose_version": "2.23.3"})},
        "box",
        ["docker_compose_version = '2.23.3'", "older than 2.24"],
    ),
    "rotation of the journal": (
        {
            "box": (
                "",
                {"docker_enabled": True, "docker_log_driver": "journald", "docker_log_max_size": 5},
            )
        },
        "box",
        ["docker_log_max_size", "set docker_log_driver = 'local'"],
    ),
    "exception from no proxy": (
        pair({"docker_no_proxy": ["mirror"]}),
        "gpu1",
        ["docker_no_proxy", "set docker_https_proxy"],
    ),
    "password in Docker's proxy": (
        pair({"docker_https_proxy": "http://me:secret@proxy:3128"}),
        "gpu1",
        ["docker_https_proxy", "holds a user or password"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


def settings(**values: Any) -> Docker:
    return Docker(**values)


class TestConfiguration:
    def test_default(self) -> None:
        assert docker_configuration(settings()) == {
            "live-restore": True,
            "log-driver": "local",
            "features": {"cdi": True},
            "log-opts": {"max-size": "10m", "max-file": "5"},
        }

    def test_every_setting_has_its_key(self) -> None:
        box = fleet_of({"box": ("", ALTERNATIVE_CONTAINERS)})["box"]
        assert docker_configuration(box[Docker]) == {
            "live-restore": False,
            "log-driver": "json-file",
            "features": {"cdi": True},
            "log-opts": {"max-size": "50m", "max-file": "3"},
            "data-root": "/srv/docker",
            "registry-mirrors": ["https://mirror.internal:5000"],
            "insecure-registries": ["registry.internal:5000", "10.0.0.0/8"],
            "proxies": {
                "http-proxy": "http://proxy.internal:3128",
                "https-proxy": "http://proxy.internal:3128",
                "no-proxy": "127.0.0.1,::1,localhost,mirror.internal",
            },
        }

    def test_journal_is_rotated_by_journald(self) -> None:
        assert "log-opts" not in docker_configuration(settings(log_driver="journald"))


def test_what_opens_something_is_marked() -> None:
    """Whoever adds a setting that can open something adds it here, and so writes its warning."""
    assert exposing(Docker) == {"insecure_registries", "users"}
