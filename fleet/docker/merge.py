"""One JSON file with two owners: the keys that are declared, and an operator's own."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# The names that lead to a value: ("log-opts", "max-size").
Path = tuple[str, ...]


def leaves(value: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no object, with its path; a list is one value, an empty object too."""
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from leaves(item, (*above, name))
        else:
            yield (*above, name), item


def merge(current: Mapping[str, Any], owned: Iterable[Path], declared: Mapping[str, Any]) -> Any:
    """`current` with the `declared` values, and without those `owned` that are declared no more.

    All other keys stay as they are. An object that only `owned` values were in goes with them.
    """
    result = copy.deepcopy(dict(current))
    wanted = dict(leaves(declared))
    for path in owned:
        if path not in wanted:
            _remove(result, path)
    for path, item in wanted.items():
        _set(result, path, item)
    return result


def _remove(value: dict[str, Any], path: Path) -> None:
    name, *rest = path
    if rest:
        inner = value.get(name)
        if isinstance(inner, dict):
            _remove(inner, tuple(rest))
            if not inner:
                del value[name]
    else:
        value.pop(name, None)


def _set(value: dict[str, Any], path: Path, item: Any) -> None:
    *above, name = path
    for part in above:
        if not isinstance(value.get(part), dict):
            value[part] = {}
        value = value[part]
    value[name] = item
