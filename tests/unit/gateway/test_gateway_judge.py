"""Whatever passes, Go's encoding/json reads no withheld setting and no other model out of it."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.gateway.fields import ALLOWED
from tests.unit.gateway.running import Running, running

_SHAPE = ALLOWED["api/chat"]
assert isinstance(_SHAPE, dict)
_OPTIONS = _SHAPE["options"]
assert isinstance(_OPTIONS, dict)
NUMBER = 4000
FIELDS = ["model", "keep_alive", "shift", "template", "options", "messages", "stream", "format"]
OPTIONS = ["num_ctx", "draft_num_predict", "temperature", "num_gpu", "seed"]
# Other ways to write letters, which Go takes for the same or not.
FOLDED = {"k": ["K", "\u212a", "\\u212a", "\\u006b"], "s": ["S", "\u017f", "\\u017f", "\\u0053"]}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("reader") / "reader"
    source = Path(__file__).parent / "reader" / "main.go"
    subprocess.run(["go", "build", "-o", program, source], check=True)
    return program


def test_what_passes_sets_nothing_for_everybody(gateway: Running, reader: Path) -> None:
    dice = random.Random(7)  # noqa: S311 - the same texts each time
    texts = [_text(dice) for _ in range(NUMBER)]
    lines = "".join(f"{text.hex()}\n" for text in texts)
    told = subprocess.run([reader], input=lines, capture_output=True, text=True, check=True)
    models: dict[str, str] = {}
    setting = 0
    for text, line in zip(texts, told.stdout.splitlines(), strict=True):
        seen = json.loads(line) or {"set": [], "model": None}
        status, headers, _ = gateway.post("/api/chat", text)
        assert status in {200, 400}, text
        acting = [name for name in seen["set"] if not _harmless(name)]
        setting += bool(acting)
        if status == 200 and seen["model"] is not None:
            assert acting == [], text
            models[headers["x-request-id"]] = seen["model"]
    # Enough of each kind, or this would say nothing.
    assert min(len(models), setting) > NUMBER / 20
    time.sleep(2)  # the log is written once a second
    logged = {entry["id"]: entry["model"] for entry in gateway.log()}
    assert {number: logged[number] for number in models} == models


def _harmless(name: str) -> bool:
    """Whether an inference key may set it, or the server knows no such option."""
    return name in {f"options.{option}" for option in _OPTIONS if _OPTIONS[option] == "any"}


def _text(dice: random.Random) -> bytes:
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
