"""The toolkit's answers."""

from __future__ import annotations

from fleet.container_toolkit.facts import Cdi, CdiDevices


class TestFacts:
    def test_cdi_list(self) -> None:
        listing = ["driver", "nvidia.com/gpu=0", "nvidia.com/gpu=all"]
        assert CdiDevices().process(listing) == Cdi(
            ("nvidia.com/gpu=0", "nvidia.com/gpu=all"), True
        )
        assert CdiDevices().process([]) == Cdi()
