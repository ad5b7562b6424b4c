"""What of Dify's settings is marked."""

from __future__ import annotations

from fleet.dify.settings import Dify
from tests.unit.exposing import exposing


def test_what_opens_something_is_marked() -> None:
    """Whoever adds a setting that can open something adds it here, and so writes its warning."""
    assert exposing(Dify) == {"listen", "plugin_signature"}
