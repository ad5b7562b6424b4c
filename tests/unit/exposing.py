"""Which settings can open something."""

from __future__ import annotations

from pydantic import BaseModel


def exposing(model: type[BaseModel]) -> set[str]:
    """The fields of `model` that have a warning in docs/settings.md."""
    return {
        name
        for name, field in model.model_fields.items()
        if "exposes" in (field.json_schema_extra or ())
    }
