"""Requests written in all the ways that Go's encoding/json could read, here and there broken."""

from __future__ import annotations

import random
from typing import Any

from fleet.gateway.fields import ALLOWED

_SHAPE = ALLOWED["api/chat"]
assert isinstance(_SHAPE, dict)
_OPTIONS = _SHAPE["options"]
assert isinstance(_OPTIONS, dict)
FIELDS = [
    "model", "keep_alive", "shift", "template", "options", "messages", "stream", "format", "new",
]  # fmt: skip
OPTIONS = ["num_ctx", "draft_num_predict", "temperature", "num_gpu", "seed", "new"]
# Other ways to write letters, which Go takes for the same or not.
FOLDED = {"k": ["K", "\u212a", "\\u212a", "\\u006b"], "s": ["S", "\u017f", "\\u017f", "\\u0053"]}


def harmless(name: str) -> bool:
    """Whether an inference key may set it, or the server knows no such option."""
    return name in {f"options.{option}" for option in _OPTIONS if _OPTIONS[option] == "any"}


def text_of(dice: random.Random) -> bytes:
    """A request, in one of the ways to write one; here and there broken."""
    parts = [_field(dice, dice.choice(FIELDS)) for _ in range(dice.randint(1, 4))]
    if dice.random() < 0.7:
        parts.insert(dice.randint(0, len(parts)), '"model":"m:1"')
    text = "{" + ",".join(parts) + "}"
    if dice.random() < 0.1:
        text += dice.choice([' {"shift":true}', "x", ",", " ", "\n", "}"])
    data = text.encode()
    if dice.random() < 0.15:
        at = dice.randrange(len(data))
        kind = dice.random()
        replaced = bytes([dice.choice(b'"\\{}[]:,\x00\xff n1')]) if kind < 0.6 else b""
        data = data[:at] + replaced + data[at + 1 :]
    return data


def _field(dice: random.Random, name: str) -> str:
    space = dice.choice(["", "", " ", "\n\t"])
    return f'{space}"{_spelt(dice, name)}"{space}:{space}{_value(dice, name)}'


def _spelt(dice: random.Random, name: str) -> str:
    if dice.random() < 0.75:
        return name
    letters = list(name)
    at = dice.randrange(len(letters))
    letters[at] = dice.choice(FOLDED.get(letters[at], [letters[at].upper()]))
    return "".join(letters)


def _value(dice: random.Random, name: str) -> str:
    if dice.random() < 0.1:
        return dice.choice(["null", "{}", "[]", '"x"', "1e9", "-0", "true"])
    values: dict[str, Any] = {
        "model": ['"m:1"', '"m\\/n"', '"a\\u0062"', '"\\""', '"two words"'],
        "messages": ['[{"role":"user"}]', '[{"Role":"user"}]', "[{},{}]"],
        "format": ['{"shift":true,"a":[{"keep_alive":1}]}', '"\\"shift\\":true"', "[[]]"],
        "template": ['"x"', '""'],
        "keep_alive": ["0", '"5m"', "-1"],
    }
    if name == "options":
        inner = [dice.choice(OPTIONS) for _ in range(dice.randint(0, 2))]
        pairs = [f'"{_spelt(dice, key)}":{dice.choice(["1", "null"])}' for key in inner]
        return "{" + ",".join(pairs) + "}"
    return dice.choice(values.get(name, ["true", "false"]))
