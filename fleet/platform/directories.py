"""Directories of a host that its services cannot be given; pure over what was asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleet.declare.fleet import FleetHost
from fleet.kit.errors import FleetError
from fleet.kit.facts.places import Place
from fleet.kit.places import Directory, problem_of


def refuse_directories(
    me: FleetHost, directories: Iterable[Directory], places: Mapping[str, Place]
) -> None:
    """Refuse a host on which `directories` are something else, somebody else's, or could be turned.

    Raises:
        FleetError: there are some; with all of them.
    """
    found = [problem_of(item, places[item.path]) for item in directories]
    if problems := [problem for problem in found if problem]:
        raise FleetError("\n".join(f"{me.name}: {problem}" for problem in problems))
