"""Refused values in an operator's words: what is wrong, and what to write."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pyinfra.api.arguments import AllArguments
from pyinfra.api.connectors import get_all_connectors

from fleet.declare.settings import Settings

# Of a refused value, what is shown: in characters.
_LONGEST = 160

# What to write, where pydantic says only what it is not.
_FIXES = {
    "bool_type": "write True or False",
    "dict_type": 'write {"name": value}',
    "float_type": "write a number, without quotes",
    "int_type": "write a whole number, without quotes",
    "ip_any_address": "write one such as '10.20.0.11'",
    "model_type": 'write {"name": value}',
    "string_type": "write text, in quotes",
}


def explain(
    name: str, model: type[Settings], values: Mapping[str, Any], error: ValidationError
) -> Iterator[str]:
    """A line for each of `values` of host `name` that pydantic refuses for `model`."""
    for item in error.errors():
        if not item["loc"]:
            yield f"{name}: {_worded(model, item, '')}"
            continue
        field, *place = item["loc"]
        key = model.key(str(field))
        value: Any = values[str(field)]
        for part in place:
            if not _holds(value, part):
                break
            key, value = f"{key}[{_cut(repr(part))}]", value[part]
        if item["type"] == "too_short" and value:
            continue  # pydantic counts the right items only; the wrong ones have their lines.
        shown = _shown(value, key)
        yield f"{name}: {key} = {shown}: {_worded(model, item, shown)}"


def unknown_keys(data: Mapping[str, Any], models: Iterable[type[Settings]]) -> Iterator[str]:
    """A line for each key of a host's data that is neither one of `models` nor pyinfra's."""
    ours, renamed = set[str](), dict[str, str]()
    for model in models:
        ours |= set(map(model.key, model.model_fields))
        renamed |= model.renamed
    known = ours | _pyinfra_keys()
    for key in sorted(set(data) - known):
        fix = f"write {renamed[key]}" if key in renamed else hint(key, known)
        shown = _shown(data[key], key, renamed.get(key), _nearest(key, known))
        yield f"{key} = {shown}: unknown setting; {fix}"


def hint(key: str, known: Iterable[str]) -> str:
    """What may have been meant by `key`."""
    near = _nearest(key, known)
    return f"did you mean {near}?" if near else "docs/settings.md lists every key"


def _worded(model: type[Settings], item: ErrorDetails, shown: str) -> str:
    """What is wrong and what to write, of a problem that pydantic found in the value `shown`."""
    kind, loc = item["type"], item["loc"]
    # What a validator of ours says is its error; pydantic puts words of its own before it.
    text = str(item["ctx"]["error"]) if kind == "value_error" else item["msg"]
    if kind == "extra_forbidden":
        return f"unknown key; {hint(str(loc[-1]), _keys_at(model, loc[:-1]))}"
    if kind == "missing":
        return f"{loc[-1]!r} is missing; add it"
    if kind == "tuple_type":
        return f"not a list; write [{shown}]"
    if kind == "too_short":
        return "empty; name at least one"
    return f"{text}; {_FIXES[kind]}" if kind in _FIXES else text


def _keys_at(model: type[BaseModel], place: Iterable[int | str]) -> set[str]:
    """What may be declared in the table at `place` of `model`, whose lists have their indexes."""
    models = [model]
    for part in place:
        if isinstance(part, str):
            owners = [item for item in models if part in item.model_fields]
            models = [
                table for item in owners for table in nested(item.model_fields[part].annotation)
            ]
    return {key for item in models for key in item.model_fields}


def nested(hint: Any) -> Iterator[type[BaseModel]]:
    """The types of tables in the type `hint`: those of its lists and unions too."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for argument in get_args(hint):
        yield from nested(argument)


def _nearest(key: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=0.6)), None)


def _holds(value: Any, part: Any) -> bool:
    if isinstance(value, list | tuple):
        return part in range(len(value))
    return isinstance(value, dict) and part in value


def _shown(value: Any, *keys: str | None) -> str:
    """A refused value as it may be printed: it could be a password in the wrong place.

    `keys` are where it was written, and what may have been meant.
    """
    if any(re.search("pass|secret|token", key) for key in keys if key):
        return "(not shown)"
    text = re.sub(
        r"sk-\w+", "sk-(not shown)", re.sub(r"://[^/@]*@", "://(not shown)@", repr(value))
    )
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _pyinfra_keys() -> set[str]:
    connectors = get_all_connectors()  # type: ignore[no-untyped-call]
    keys = {key for item in connectors.values() for key in getattr(item, "data_meta", {})}
    return keys | set(get_type_hints(AllArguments))
