"""Settings of whatever a host fetches by itself, in a unit of its own: models, weights."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from fleet.declare.settings import Settings
from fleet.declare.types import PositiveDuration
from fleet.kit.durations import seconds

_MEGABYTE, _GIGABYTE = 1_000_000, 1_000_000_000


class Loading(Settings):
    """How patient a loader is, and what it leaves free."""

    wait: bool = Field(
        True, description="Wait until everything is there. `False` leaves the host to it."
    )
    wait_timeout: PositiveDuration = Field(
        "6h",
        description="How long a deploy waits. The host goes on by itself after that.",
    )
    prune: bool = Field(
        False,
        description=(
            "Remove what is there and not declared, but never what is in use. `False` only "
            "reports it."
        ),
    )
    no_progress: PositiveDuration = Field(
        "3m",
        description=(
            "A transfer without a new byte for so long is given up and begun anew; it goes on from "
            "where it was."
        ),
    )
    slow_rate: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        0.0,
        description=(
            "A transfer slower than this is interrupted and resumed at once, as fresh connections "
            "often are faster. 0 is never."
        ),
        json_schema_extra={"unit": "MB/s"},
    )
    slow_window: PositiveDuration = Field(
        "2m",
        description="Over how long the rate is averaged that must not be too slow; also the least "
        "time between two such interruptions.",
    )
    attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        5,
        description=(
            "Attempts for one thing, one after the other and without a new byte, before it counts "
            "as failed. The host begins anew by itself after the longest pause."
        ),
    )
    retry_delay: PositiveDuration = Field(
        "5s",
        description="Pause after a first failed attempt; doubled after each further one.",
    )
    retry_delay_max: PositiveDuration = Field(
        "5m",
        description="Longest pause between two attempts, and between two runs of the loader.",
    )
    disk_reserve: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        5.0,
        description="What must stay free where it is kept; checked before anything is fetched.",
        json_schema_extra={"unit": "GB"},
    )

    @model_validator(mode="after")
    def _pauses(self) -> Loading:
        if seconds(self.retry_delay) > seconds(self.retry_delay_max):
            first, longest = self.key("retry_delay"), self.key("retry_delay_max")
            raise ValueError(
                f"{first}: {self.retry_delay} is longer than {longest} = "
                f"{self.retry_delay_max}; exchange them"
            )
        return self

    @property
    def limits(self) -> dict[str, Any]:
        """Them as a loader reads them: seconds, bytes, bytes a second."""
        return {
            "no_progress": seconds(self.no_progress),
            "slow_rate": self.slow_rate * _MEGABYTE,
            "slow_window": seconds(self.slow_window),
            "attempts": self.attempts,
            "first_delay": seconds(self.retry_delay),
            "longest_delay": seconds(self.retry_delay_max),
            "disk_reserve": self.disk_reserve * _GIGABYTE,
        }

    @property
    def patience(self) -> float | None:
        """Seconds that a deploy waits; None if it does not."""
        return seconds(self.wait_timeout) if self.wait else None
