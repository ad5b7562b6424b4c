"""What every capability's settings are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Declared(BaseModel):
    """What is declared is strict, frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Settings(Declared):
    """The keys of one capability, without their prefix.

    A field's `json_schema_extra` may hold `unit` (shown in the docs) and `exposes` (the warning
    shown beside a setting that opens something). `renamed` has each former key, as it was written,
    and what to write now: a refusal ends with it.
    """

    prefix: ClassVar[str]
    renamed: ClassVar[Mapping[str, str]] = {}
