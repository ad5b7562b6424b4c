"""docs/settings.md, the index of the pages, and README's table of what is done to a host.

What is said of a type is told where the type is: see `Words` and `Item`. `python -m fleet.docs`
writes what is generated; `python -m fleet.docs --check` exits 1 when something is stale.
"""

from __future__ import annotations

import argparse
import re
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from operator import add
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pyinfra.api.inventory import Inventory

from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import PRODUCT_ROOT
from fleet.declare.load import group_names, load_fleet
from fleet.declare.settings import Item, Settings
from fleet.declare.types import Words
from fleet.kit.errors import SettingsError
from fleet.kit.footprint import Trace

Key = Callable[[str], str]  # from a field to what an inventory calls it

PATH = PRODUCT_ROOT / "docs" / "settings.md"
INDEX = PRODUCT_ROOT / "docs" / "operating.md"
README = PRODUCT_ROOT / "README.md"

# The pages of docs/operating/ that are a capability's; all others are about what an operator does.
_TASKS = frozenset(path.stem for path in (PRODUCT_ROOT / "tasks").glob("[!_]*.py"))

# Python's own types in an operator's words; all others tell theirs.
_PYTHON = {
    bool: Words("`True` or `False`"),
    int: Words("whole number"),
    float: Words("number"),
    str: Words("text"),
    type(None): Words("`None`"),
}

_INTRODUCTION = """\
<!-- Generated from each capability's settings.py in fleet/: change it there, run `make docs`. -->

# Settings

Every key, with its type, its default and its meaning. A key that is not declared has its default;
what is not listed here (and is no setting of pyinfra's own, such as `ssh_user`) is refused.

Keys are flat and plain. pyinfra takes a key from the first of these places that has it:

| place | for |
|---|---|
| `pyinfra ... --data ollama_keep_alive=24h` | every host, for one run |
| the host's data in the inventory, `("gpu1", {{"private_address": "10.0.0.11"}})` | one host |
| `group_data/gpu.py`, `ollama_keep_alive = "24h"` | a group, in all inventories |
| the group's data in the inventory, `gpu = ([...], {{"ollama_keep_alive": "24h"}})` | a group |
| `group_data/all.py` | every host, in all inventories |
| `all = ([...], {{...}})` in the inventory | every host; those that it does not list are left out |

Of two groups of a host, the one further down in the inventory decides. All hosts of
`inventory/prod.py` are also in a group `prod`, the last of all: what is in `group_data/prod.py`
holds for that inventory alone. What would be lost without a word is refused: a host twice in one
list, a host with different data of its own in two groups, two hosts reached at one address, and a
file in `group_data` whose name is no group.

A host's groups say what it runs, and a host may be in several. Each group, with its keys:
{groups}.

Secrets have no key: the inventory names them, the secrets store has their values.

A duration is written as in `30s`, `5m` or `1h30m`; a bare number is seconds. A list is written as
`["a", "b"]`. Keys marked ⚠ can open something that is closed by default; what they open is said
with them.

## Refusals

The whole inventory is checked before any host is touched; `fleet check inventory/prod.py` does so
without a deploy. First every wrong value of every host is named at once: the host, the key, its
value, and what to do. When no value is wrong, so is every contradiction between settings and
between hosts, and then whatever is wrong with stored keys.

```text
{refusal}
```
"""


def generate() -> str:
    """The whole of docs/settings.md."""
    introduction = _INTRODUCTION.format(groups=_groups(), refusal=_refusal())
    sections = [text for item in CAPABILITIES for text in _sections(item.settings)]
    return "\n".join([introduction, *sections])


def _groups() -> str:
    """Every group, with the prefixes of what its hosts run."""
    parts = []
    for group in group_names(CAPABILITIES):
        models = [item.settings for item in CAPABILITIES if item.group == group]
        parts.append(f"`{group}` ({', '.join(f'`{model.prefix}`' for model in models)})")
    return ", ".join(parts)


def _refusal() -> str:
    """A real refusal, so that the page shows what an operator will read."""
    mistakes = {"ollama_keep_alive": "5 minutes", "ollama_paralel": 4, "models_wait": "yes"}
    try:
        load_fleet(Inventory((["gpu1"], {}), gpu=(["gpu1"], mistakes)), CAPABILITIES)  # type: ignore[no-untyped-call]
    except SettingsError as error:
        return str(error)
    raise AssertionError(f"settings that are refused no more: {mistakes}")


def _sections(model: type[Settings]) -> Iterator[str]:
    """A capability's keys, and a table for each type that they hold tables of."""
    title = f"`{model.prefix}`" if model.prefix else "Keys without a prefix"
    yield _section(f"## {title}", (model.__doc__ or "").strip(), "key", _rows(model, model.key))
    yield from _item_sections(model, model.key)


def _item_sections(model: type[BaseModel], key_of: Key) -> Iterator[str]:
    for name, hint in _hints(model).items():
        for item, is_listed in _items(hint):
            key = key_of(name)
            below = partial(add, f"{key}[]." if is_listed else f"{key}.")
            title = f"### {item.heading} of `{key}`"
            yield _section(title, item.introduction, "field", _rows(item, below))
            yield from _item_sections(item, below)


def _items(hint: Any, *, is_listed: bool = False) -> Iterator[tuple[type[Item], bool]]:
    """The types of tables in a hint, and whether a list holds them."""
    if isinstance(hint, type) and issubclass(hint, Item):
        yield hint, is_listed
    for argument in get_args(hint):
        yield from _items(argument, is_listed=is_listed or get_origin(hint) is tuple)


def _section(title: str, introduction: str, first: str, rows: Iterable[str]) -> str:
    return "\n".join(
        [
            title,
            "",
            introduction,
            "",
            f"| {first} | type | default | unit | meaning |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _rows(model: type[BaseModel], key_of: Key) -> list[str]:
    hints = _hints(model)
    return [_row(key_of(name), field, hints[name]) for name, field in model.model_fields.items()]


def _hints(model: type[BaseModel]) -> dict[str, Any]:
    """Field to its type, with all that annotates it."""
    hints = get_type_hints(model, include_extras=True)
    return {name: hints[name] for name in model.model_fields}


def _row(key: str, field: FieldInfo, hint: Any) -> str:
    extra: Mapping[str, Any] = (
        field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    )
    meaning = field.description or ""
    if "exposes" in extra:
        meaning += f" ⚠ **Exposing:** {extra['exposes']}"
    cells = (
        f"`{key}`" + (" ⚠" if "exposes" in extra else ""),
        describe_type(hint, field.metadata),
        "needed" if field.is_required() else f"`{_literal(field.get_default())}`",
        str(extra.get("unit", "")),
        meaning,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def describe_type(hint: Any, constraints: Iterable[Any] = ()) -> str:
    """What may be written for a setting of type `hint`, in words.

    `constraints` are what a field says besides its type; of them the bounds of numbers are told.

    Raises:
        TypeError: a type that has no words.
    """
    return _words(hint, constraints).one


def _words(hint: Any, constraints: Iterable[Any] = ()) -> Words:
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        own = [extra for extra in extras if isinstance(extra, Words)]
        return own[-1] if own else _words(inner, constraints or _flat(extras))
    if get_origin(hint) is not None:
        return Words(_compound(get_origin(hint), get_args(hint), constraints))
    if hint in _PYTHON:
        bounds = _bounds(constraints) if hint in (int, float) else ""
        return Words(_PYTHON[hint].one + bounds)
    if isinstance(hint, type) and issubclass(hint, Item):
        return hint.words
    raise TypeError(f"no words for {hint!r}: annotate it with `Words`")


def _compound(origin: Any, arguments: tuple[Any, ...], constraints: Iterable[Any]) -> str:
    if origin is Literal:
        return "one of " + ", ".join(f"`{_literal(choice)}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(item, constraints).one for item in arguments)
    if origin is tuple:
        return f"list of {_words(arguments[0]).plural}"
    if origin in (dict, Mapping):
        key, value = map(_words, arguments)
        return f"{key.one} to {value.one}"
    raise TypeError(f"no words for {origin!r} in fleet/docs.py")


def _flat(constraints: Iterable[Any]) -> list[Any]:
    """Constraints one by one: pydantic's `Field` holds several."""
    return [
        item
        for constraint in constraints
        for item in (constraint.metadata if isinstance(constraint, FieldInfo) else [constraint])
    ]


def _bounds(constraints: Iterable[Any]) -> str:
    low = next((item.ge for item in constraints if isinstance(item, Ge)), None)
    high = next((item.le for item in constraints if isinstance(item, Le)), None)
    if low is not None and high is not None:
        return f" ({low} to {high})"
    return f" (at least {low})" if low is not None else ""


def _literal(value: Any) -> str:
    """A value as it is written in an inventory."""
    if isinstance(value, Item):
        return _literal(value.written())
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        value = str(value)
    return f'"{value}"' if isinstance(value, str) else repr(value)


def index() -> str:
    """The whole of docs/operating.md: its tables are made anew of what the pages begin with."""
    page = INDEX.read_text()
    for heading, rows in (("page", _rows_of_pages(True)), ("topic", _rows_of_pages(False))):
        table = "\n".join((f"| {heading} | answers |", "|---|---|", *rows, ""))
        there = re.search(rf"^\| {heading} .*?\n(?!\|)", page, re.M | re.S)
        assert there, f"{INDEX.name} has no table of every {heading}"
        page = page.replace(there[0], table)
    return page


def _rows_of_pages(of_capabilities: bool) -> Iterator[str]:
    """A row for each page: those of capabilities, or all others that say what they answer."""
    for page in sorted(INDEX.with_suffix("").glob("*.md")):
        summary = page.read_text().splitlines()[2]
        if (page.stem in _TASKS) == of_capabilities and summary.startswith("> "):
            yield f"| [{page.stem}]({INDEX.stem}/{page.name}) | {summary[2:]} |"


def readme() -> str:
    """The whole of README.md: its table of what is done to a host is made anew of footprints."""
    fleet = load_fleet(Inventory((["gpu1"], {}), gpu=(["gpu1"], {})), CAPABILITIES)  # type: ignore[no-untyped-call]
    rows = ["| where | what | `fleet remove` |", "|---|---|---|"]
    for item in CAPABILITIES:
        for trace in item.footprint(fleet["gpu1"]):
            rows.append(f"| {trace.where} | {trace.what} | {_fate(trace)} |")
    table = "\n".join(rows) + "\n"
    return re.sub(r"^\| where .*?\n(?!\|)", lambda _: table, README.read_text(), flags=re.M | re.S)


def _fate(trace: Trace) -> str:
    if trace.fate == "goes":
        return "goes"
    option = "" if trace.fate == "stays" else f" without `--{trace.fate}`"
    return f"stays{option}: {trace.why}"


def stale(path: Path, content: str, source: str) -> Iterator[str]:
    """One line that says what to do, when `path` is not `content`, which is made of `source`."""
    if not path.exists():
        yield f"{path.relative_to(PRODUCT_ROOT)} is missing; run `make docs` and commit it"
    elif path.read_text() != content:
        yield (
            f"{path.relative_to(PRODUCT_ROOT)} is stale, {source} has changed since; run "
            "`make docs` and commit it"
        )


def main(arguments: list[str] | None = None) -> int:
    """Write what is generated, or check it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fleet.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when stale")
    if not parser.parse_args(arguments).check:
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(generate())
        INDEX.write_text(index())
        README.write_text(readme())
        return 0
    problems = [
        *stale(PATH, generate(), "a settings.py in fleet/"),
        *stale(INDEX, index(), "a page in docs/operating/"),
        *stale(README, readme(), "a footprint.py in fleet/"),
    ]
    sys.stderr.writelines(f"{line}\n" for line in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
