"""NVIDIA's repository for each system."""

from __future__ import annotations

import pytest

from fleet.driver.files import repository
from fleet.driver.plan import System
from tests.fleets import fleet_of


class TestRepository:
    @pytest.mark.parametrize(
        ("system", "place", "key"),
        [
            (System("ubuntu", "22.04"), "ubuntu2204/x86_64", "3bf863cc.pub"),
            (System("ubuntu", "24.04", "aarch64"), "ubuntu2404/sbsa", "3bf863cc.pub"),
            (System("ubuntu", "26.04"), "ubuntu2604/x86_64", "60DF8A40.pub"),
            (System("debian", "12"), "debian12/x86_64", "3bf863cc.pub"),
            (System("debian", "13"), "debian13/x86_64", "8793F200.pub"),
            (System("debian", "13", "aarch64"), "debian13/sbsa", "8793F200.pub"),
        ],
    )
    def test_key_of_each_distribution(self, system: System, place: str, key: str) -> None:
        found = repository(fleet_of({"gpu1": ("gpu", {})})["gpu1"], system)
        base = "https://developer.download.nvidia.com/compute/cuda/repos"
        assert (found.url, found.key) == (f"{base}/{place}", f"{base}/{place}/{key}")
        assert found.fingerprint.lower().endswith(key.removesuffix(".pub").lower())
