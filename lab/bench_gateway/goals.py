"""What was to be reached, what was found, and whether that holds."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_WIDE, _MIDDLE = 66, 12


@dataclass(frozen=True)
class Row:
    """A line of the table. `held` is None where there is no goal, only something to know."""

    what: str
    found: str
    goal: str = "-"
    held: bool | None = None

    def __str__(self) -> str:
        held = {None: "", True: "yes", False: "NO"}[self.held]
        return f"{self.what:<{_WIDE}} {self.goal:<{_MIDDLE}} {self.found:<34} {held}".rstrip()


HEAD = f"{'':<{_WIDE}} {'goal':<{_MIDDLE}} {'found (middle half of the rounds)':<34} held"


def at_least(what: str, goal: float, values: Sequence[float]) -> Row:
    """A ratio whose median has to be `goal` or more."""
    return Row(what, spread(values), f">= {goal}", statistics.median(values) >= goal)


def at_most(what: str, goal: float, values: Sequence[float], unit: str = "") -> Row:
    """Something whose median has to be `goal` or less."""
    held = statistics.median(values) <= goal
    return Row(what, spread(values, unit), f"<= {goal:g}{unit}", held)


def told(what: str, values: Sequence[float], unit: str = "") -> Row:
    """Something to know."""
    return Row(what, spread(values, unit))


def spread(values: Sequence[float], unit: str = "") -> str:
    """The median, and between which two the middle half lies."""
    if len(values) < 2:
        return f"{values[0]:.3g}{unit}"
    low, middle, high = (f"{value:.3g}" for value in statistics.quantiles(values, n=4))
    return f"{middle}{unit} ({low} to {high})"


def ratios(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """The rounds' own ratios: what else the machine does meets both of a round."""
    return [one / other for one, other in zip(ours, others, strict=True)]


def differences(ours: Sequence[float], others: Sequence[float]) -> list[float]:
    """The same of differences."""
    return [one - other for one, other in zip(ours, others, strict=True)]
