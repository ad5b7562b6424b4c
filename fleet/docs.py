"""docs/settings.md, generated from `fleet.settings`.

`python -m fleet.docs` writes it; `python -m fleet.docs --check` exits 1 when it is stale.
"""

from __future__ import annotations

import argparse
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pyinfra.api.inventory import Inventory

from fleet.capabilities import CAPABILITIES
from fleet.declare import types as settings
from fleet.declare.fleet import PROJECT_ROOT
from fleet.declare.load import load_fleet
from fleet.declare.settings import Settings
from fleet.dify.settings import (
    Dify,
    DifyModel,
    DifyModelDeclared,
    ImageDigest,
    ImageName,
    OwnerEmail,
    PluginIdentifier,
    Subnet,
)
from fleet.docker.settings import RegistryName, UserName
from fleet.firewall.settings import InterfaceName
from fleet.gateway.settings import Expiry, Gateway, GatewayKey, GatewayKeyDeclared, Rate
from fleet.kit.errors import SettingsError
from fleet.ollama import models as model_declarations
from fleet.ollama.settings import Gpus, InstanceName, Ollama, OllamaInstance

PATH = PROJECT_ROOT / "docs" / "settings.md"

# The named types of fleet.settings, in an operator's words.
_WORDS: tuple[tuple[Any, str], ...] = (
    (settings.Duration, "duration"),
    (settings.PositiveDuration, "duration (at least 1s)"),
    (settings.Sha256, "SHA-256"),
    (model_declarations.Model, "model"),
    (settings.AbsolutePath, "absolute path"),
    (settings.HttpUrl, "http(s) address"),
    (settings.Fingerprint, "key (its 40 capital hexadecimal digits)"),
    (settings.Version, "version (three numbers)"),
    (UserName, "user name"),
    (RegistryName, "host (`name:port`) or network"),
    (settings.Port, "port"),
    (Gpus, '`"all"` or list of GPUs'),
    (InstanceName, "name"),
    (settings.ImageReference, "image with its digest"),
    (OllamaInstance, "instance"),
    (InterfaceName, "interface name"),
    (settings.KeyName, "key name"),
    (GatewayKeyDeclared, "key name or key"),
    (Rate, "rate"),
    (Expiry, "date or time"),
    (settings.Origin, "origin"),
    (settings.DnsName, "DNS name"),
    (settings.EmailAddress, "email address"),
    (OwnerEmail, "email address"),
    (Subnet, "IPv4 network"),
    (ImageName, "image"),
    (ImageDigest, "digest (`sha256:...`)"),
    (PluginIdentifier, "plugin identifier"),
    (DifyModelDeclared, "model name or model"),
    (settings.EnvName, "variable name"),
    (settings.EnvValue, "text"),
    (settings.Address, "IP address"),
    (settings.Network, "IP network"),
    (bool, "`True` or `False`"),
    (int, "whole number"),
    (float, "number"),
    (model_declarations.ModelParameters, "parameters"),
    (str, "text"),
    (type(None), "`None`"),
)
_PLURALS = {
    "key name or key": "key names or keys",
    "model name or model": "model names or models",
    "http(s) address": "http(s) addresses",
    "host (`name:port`) or network": "hosts (`name:port`) or networks",
    "IP address": "IP addresses",
    "text": "texts",
}

_INTRODUCTION = """\
<!-- Generated from fleet/settings.py: change it there and run `make docs`. -->

# Settings

Every key, with its type, its default and its meaning. A key that is not declared has its default;
what is not listed here (and is no setting of pyinfra's own, such as `ssh_user`) is refused.

Keys are flat and plain. pyinfra takes a key from the first of these places that has it:

| place | for |
|---|---|
| `pyinfra ... --data ollama_keep_alive=24h` | every host, for one run |
| the host's data in the inventory, `("gpu1", {{"private_address": "10.0.0.11"}})` | one host |
| `group_data/{gpu}.py`, `ollama_keep_alive = "24h"` | a group, in all inventories |
| the group's data in the inventory, `{gpu} = ([...], {{"ollama_keep_alive": "24h"}})` | a group |
| `group_data/all.py` | every host, in all inventories |
| `all = ([...], {{...}})` in the inventory | every host; those that it does not list are left out |

Of two groups of a host, the one further down in the inventory decides. All hosts of
`inventory/prod.py` are also in a group `prod`, the last of all: what is in `group_data/prod.py`
holds for that inventory alone.

A host's groups say what it runs: `{gpu}` runs Ollama, `{gateway}` runs the front door, and a host
may be in both. Secrets have no key: the inventory names them, the secrets store has their values.

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
    introduction = _INTRODUCTION.format(gpu="gpu", gateway="gateway", refusal=_refusal())
    sections = []
    for model in (item.settings for item in CAPABILITIES):
        sections.append(_section(model))
        if model is Ollama:
            sections.append(_instance_section())
        if model is Gateway:
            sections.append(_key_section())
        if model is Dify:
            sections.append(_dify_model_section())
    return "\n".join([introduction, *sections, _models()])


def _refusal() -> str:
    """A real refusal, so that the page shows what an operator will read."""
    mistakes = {"ollama_keep_alive": "5 minutes", "ollama_paralel": 4, "models_wait": "yes"}
    try:
        load_fleet(Inventory((["gpu1"], {}), gpu=(["gpu1"], mistakes)), CAPABILITIES)  # type: ignore[no-untyped-call]
    except SettingsError as error:
        return str(error)
    raise AssertionError(f"settings that are refused no more: {mistakes}")


def _section(model: type[Settings]) -> str:
    title = f"`{model.prefix}`" if model.prefix else "Keys without a prefix"
    hints = get_type_hints(model, include_extras=True)
    rows = [
        _row(f"{model.prefix}{name}", field, hints[name])
        for name, field in model.model_fields.items()
    ]
    return "\n".join(
        [
            f"## {title}",
            "",
            (model.__doc__ or "").strip(),
            "",
            "| key | type | default | unit | meaning |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _instance_section() -> str:
    return _item_section(
        OllamaInstance,
        "ollama_instances",
        "An instance",
        '`{"name": "a", "port": 11434, "gpus": [0, 1], "context_length": 32768}`. '
        "What else there is to know of them is in "
        "[operating/ollama.md](operating/ollama.md#several-instances).",
    )


def _key_section() -> str:
    return _item_section(
        GatewayKey,
        "gateway_keys",
        "A key",
        'A name alone, `"team-a"`, or what is to hold for it: '
        '`{"name": "ci", "rate": "120/m", "concurrent": 4, "expires": "2027-06-30"}`.',
    )


def _dify_model_section() -> str:
    return _item_section(
        DifyModel,
        "dify_models",
        "A model",
        'A name alone, `"gpt-oss:20b"`, or its limits too: '
        '`{"name": "gpt-oss:20b", "context_size": 32768, "max_tokens": 8192}`.',
    )


def _item_section(model: type[BaseModel], key: str, title: str, example: str) -> str:
    hints = get_type_hints(model, include_extras=True)
    rows = [
        _row(f"{key}[].{name}", field, hints[name]) for name, field in model.model_fields.items()
    ]
    return "\n".join(
        [
            f"### {title} of `{key}`",
            "",
            example,
            "",
            "| field | type | default | unit | meaning |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


_MODELS = """\
## A model's declaration

An item of `ollama_models` is a name, or `{"name": ..., ...}` with the keys below. How to add, pin
and change models is in [operating/models.md](operating/models.md).

```python
ollama_models = [
    "gpt-oss:20b",
    {
        "name": "analyst",
        "base": "gpt-oss:20b",
        "system": "You answer in one sentence.",
        "parameters": {"num_ctx": 48000, "temperature": 0.2},
        "load": True,
    },
]
```
"""


def _models() -> str:
    """The keys of a declaration and of its parameters, written with quotes as they are in one."""
    parts = [_MODELS]
    for model, title in (
        (model_declarations.ModelDeclaration, ""),
        (model_declarations.ModelParameters, "The keys of `parameters`:\n"),
    ):
        hints = get_type_hints(model, include_extras=True)
        parts += [title] if title else []
        parts += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for name, field in model.model_fields.items():
            default = "required" if field.is_required() else f"`{_literal(field.get_default())}`"
            kind = describe_type(hints[name], field.metadata)
            parts.append(f'| `"{name}"` | {kind} | {default} | {field.description} |')
        parts.append("")
    return "\n".join(parts)


def _row(key: str, field: FieldInfo, hint: Any) -> str:
    extra: Mapping[str, Any] = (
        field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    )
    kind = describe_type(hint, field.metadata)
    unit = str(extra.get("unit", ""))
    meaning = field.description or ""
    if "exposes" in extra:
        meaning += f" ⚠ **Exposing:** {extra['exposes']}"
    cells = (
        f"`{key}`" + (" ⚠" if "exposes" in extra else ""),
        kind,
        "needed" if field.is_required() else f"`{_literal(field.get_default())}`",
        "" if kind.startswith(unit) else unit,
        meaning,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def describe_type(hint: Any, constraints: Iterable[Any] = ()) -> str:
    """What may be written for a setting of type `hint`, in words.

    Raises:
        TypeError: a type that this page has no words for yet.
    """
    for known, words in _WORDS:
        if hint is known:
            return words + (_bounds(constraints) if known in (int, float) else "")
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return describe_type(arguments[0], constraints or _flat(arguments[1:]))
    if origin is Literal:
        return "one of " + ", ".join(f"`{_literal(choice)}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(item, constraints) for item in arguments)
    if origin is tuple:
        return f"list of {_plural(describe_type(arguments[0]))}"
    if origin is dict:
        return f"{describe_type(arguments[0])} to {describe_type(arguments[1])}"
    raise TypeError(f"no words for {hint!r} in fleet/docs.py")


def _flat(constraints: Iterable[Any]) -> list[Any]:
    """Constraints one by one: pydantic's `Field` holds several."""
    return [
        item
        for constraint in constraints
        for item in (constraint.metadata if isinstance(constraint, FieldInfo) else [constraint])
    ]


def _plural(words: str) -> str:
    return _PLURALS.get(words, f"{words}s")


def _bounds(constraints: Iterable[Any]) -> str:
    low = next((item.ge for item in constraints if isinstance(item, Ge)), None)
    high = next((item.le for item in constraints if isinstance(item, Le)), None)
    if low is not None and high is not None:
        return f" ({low} to {high})"
    return f" (at least {low})" if low is not None else ""


def _literal(value: Any) -> str:
    """A value as it is written in an inventory."""
    if isinstance(value, model_declarations.ModelParameters):
        return _literal(value.declared())
    if isinstance(value, model_declarations.ModelDeclaration):
        return _literal(value.name)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        value = str(value)
    return f'"{value}"' if isinstance(value, str) else repr(value)


def stale(path: Path) -> Iterator[str]:
    """One line that says what to do, when `path` is not what would be generated."""
    if not path.exists():
        yield f"{path.relative_to(PROJECT_ROOT)} is missing; run `make docs` and commit it"
    elif path.read_text() != generate():
        yield (
            f"{path.relative_to(PROJECT_ROOT)} is stale, fleet/settings.py has changed since; "
            "run `make docs` and commit it"
        )


def main(arguments: list[str] | None = None) -> int:
    """Write docs/settings.md, or check it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fleet.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when stale")
    if not parser.parse_args(arguments).check:
        PATH.parent.mkdir(exist_ok=True)
        PATH.write_text(generate())
        return 0
    problems = list(stale(PATH))
    sys.stderr.writelines(f"{line}\n" for line in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
