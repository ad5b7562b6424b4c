"""The driver that is loaded."""

from __future__ import annotations

from fleet.driver import status
from tests.fleets import GPU, fleet_of


def test_loaded_and_none() -> None:
    fleet = fleet_of({"gpu1": ("gpu", {**GPU[1], "driver_branch": 580})})
    [look] = status.looks(fleet["gpu1"], fleet)
    [item], [none] = look.tell([["580.95.05"]]), look.tell([[]])
    assert item.text == "driver 580.95.05"
    assert item.values == {"loaded": "580.95.05", "declared": "580"}
    assert (none.text, none.values["loaded"]) == ("", None)
