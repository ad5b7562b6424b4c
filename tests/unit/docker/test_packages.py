"""Which packages Docker is made of."""

from __future__ import annotations

import pytest

from fleet.docker.packages import compose_package, versions
from fleet.kit.errors import FleetError
from tests.fleets import ALTERNATIVE_CONTAINERS, fleet_of


class TestPackages:
    def test_versions_leave_the_distribution_open(self) -> None:
        box = fleet_of({"box": ("", ALTERNATIVE_CONTAINERS)})["box"]
        assert versions(box) == {
            "docker-ce": "5:28.5.2-*",
            "docker-ce-cli": "5:28.5.2-*",
            "containerd.io": "1.7.29-*",
            "docker-compose-plugin": "2.24.0-*",
        }

    def test_distribution_without_compose_2(self) -> None:
        box = fleet_of({"box": ("", {"docker_enabled": True, "docker_source": "distribution"})})
        release = {"ID": "debian", "VERSION_ID": "12"}
        with pytest.raises(FleetError, match=r"debian 12 has no Compose .* docker_source = 'dock"):
            compose_package(box["box"], release)
