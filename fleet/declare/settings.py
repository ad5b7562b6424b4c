"""What every capability's settings are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

from fleet.declare.types import Words


def _from_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


# Before an item: its name alone, as text, may stand for it.
FROM_NAME = BeforeValidator(_from_name)


class Declared(BaseModel):
    """A table of an inventory: strict, frozen, and without unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class Item(Declared):
    """What a setting holds, or several of: docs/settings.md has a table of its keys.

    The table's heading is `heading` and the setting; `introduction` is Markdown before it, with an
    example. `words` are what the type is called.
    """

    heading: ClassVar[str]
    introduction: ClassVar[str]
    words: ClassVar[Words]

    def written(self) -> Any:
        """It as an inventory would have it: its keys that are set, or its name alone."""
        values = self.model_dump(exclude_unset=True)
        return values["name"] if set(values) == {"name"} else values


class Settings(Declared):
    """The keys of one capability, without their `prefix`.

    Docstrings of subclasses and descriptions of fields are what docs/settings.md says of them. A
    field's `json_schema_extra` may hold `unit`, where the type does not say it, and `exposes`, the
    warning beside a setting that opens something. `renamed` has each former key, as it was written,
    and what to write now: a refusal ends with it. `unprefixed` are fields whose key is their name
    as it stands: a word that begins as the prefix does, such as `gpus` beside `gpu_count`.
    """

    prefix: ClassVar[str]
    renamed: ClassVar[Mapping[str, str]] = {}
    unprefixed: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def key(cls, field: str) -> str:
        """What an inventory calls the setting `field`."""
        return field if field in cls.unprefixed else f"{cls.prefix}{field}"
