"""Where tests are: those of a module of a room in the room of the same name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.declare.fleet import PRODUCT_ROOT

ROOMS = sorted(
    path for path in (PRODUCT_ROOT / "tests" / "unit").iterdir() if (path / "__init__.py").exists()
)


def modules_of(room: str) -> set[str]:
    """The names of what may be tested in `tests/unit/<room>`."""
    places = {
        "lab": [PRODUCT_ROOT / "lab"],
        "compliance": [PRODUCT_ROOT / "tests" / "compliance"],
    }.get(room, [PRODUCT_ROOT / "fleet" / room])
    return {
        path.stem.replace("-", "_")
        for place in places
        for path in place.rglob("*")
        if path.suffix in (".py", ".lua", "") and path.is_file()
    }


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_each_tests_a_module_of_its_room(room: Path) -> None:
    tested = {path.stem.removeprefix("test_") for path in room.rglob("test_*.py")}
    assert tested - modules_of(room.name) == set()
    assert tested
