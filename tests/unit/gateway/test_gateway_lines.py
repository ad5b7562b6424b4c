"""A client that had not asked what its stream took sees nothing of what was asked for it."""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.metering import Answer, Metering, metering
from tests.unit.gateway.said import (
    ASKING,
    EVENTS,
    FAKE,
    TEXT,
    TOOL,
    USAGE,
    events,
    ollama_completions,
)


@pytest.fixture(scope="module")
def nginx() -> Iterator[Metering]:
    with tempfile.TemporaryDirectory() as directory, metering(Path(directory)) as shown:
        yield shown
        # Servers that are lost on purpose are in it, and no fault of a program.
        assert "[lua]" not in shown.errors()
        assert "failed to run" not in shown.errors()


# Streams as servers write them with the option, and without.
def ollama_chat(asked: bool) -> bytes:
    head = {"id": "c-1", "object": "chat.completion.chunk", "model": "tiny"}
    return events(
        *[{**head, "choices": [{"delta": {"content": TEXT}, "finish_reason": None}]}] * 3,
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        *([{**head, "choices": [], "usage": USAGE}] if asked else []),
        done=True,
    )  # fmt: skip


def vllm_completions(asked: bool) -> bytes:
    # A null that is there either way.
    return events(
        *({"id": "c", "choices": [{"text": TEXT, "finish_reason": None}], "usage": None},) * 3,
        {"id": "c", "choices": [{"text": "", "finish_reason": "length"}], "usage": None},
        *([{"id": "c", "choices": [], "usage": USAGE}] if asked else []),
        done=True,
    )


def counting_on(asked: bool) -> bytes:
    # The member is the first, the last, and between others.
    usage = {"usage": USAGE} if asked else {}
    said = {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]}
    return b": a comment\n\n" + events(
        {**usage, **said},
        {**said, **usage},
        {"id": "x", **usage, **said},
        *([{"id": "x", **usage, "choices": []}] if asked else []),
        done=True,
    )


def windows_lines(asked: bool) -> bytes:
    return ollama_completions(asked).replace(b"\n", b"\r\n")


def spaced(asked: bool) -> bytes:
    usage = ', "usage" : {"prompt_tokens": 11, "completion_tokens": 3}' if asked else ""
    last = f'data:{{"choices": [ ]{usage} }}\n\n' if asked else ""
    said = '{"choices": [{"delta": {"content": "\\"usage\\":{"}}]' + usage + " }"
    return f"data:{said}\n\n{last}data:[DONE]\n\n".encode()


def tool_arguments(asked: bool) -> bytes:
    said = {"choices": [{"delta": {"tool_calls": TOOL}, "logprobs": FAKE, "finish_reason": None}]}
    return events(said, *([{"choices": [], "usage": USAGE}] if asked else []), done=True)


def a_long_line(asked: bool) -> bytes:
    said = {"choices": [{"delta": {"content": TEXT * 2000}, "finish_reason": None}]}
    return events(said, *([{"choices": [], "usage": USAGE}] if asked else []), done=True)


def an_error(asked: bool) -> bytes:
    return events({"choices": [{"delta": {"content": "a"}}]}, {"error": {"message": "lost"}})


STREAMS = [
    ollama_chat, ollama_completions, vllm_completions, counting_on, windows_lines, spaced,
    tool_arguments, a_long_line, an_error,
]  # fmt: skip


@pytest.mark.parametrize("stream", STREAMS)
def test_a_client_that_did_not_ask_sees_nothing_of_it(nginx: Metering, stream: Any) -> None:
    dice = random.Random(11)  # noqa: S311 - the same splits each time
    sent, wanted = stream(asked=True), stream(asked=False)
    for number in range(30):
        places = sorted(dice.sample(range(1, len(sent)), min(number, 24)))
        parts = [sent[one:two] for one, two in pairwise([0, *places, len(sent)])]
        answer = Answer(EVENTS, parts, pause=0.001)
        assert nginx.ask("v1/chat/completions", answer, headers=ASKING) == wanted, places
        if stream is not an_error:
            assert nginx.last()["estimated"] is False, places


def test_a_stream_is_the_same_byte_by_byte(nginx: Metering) -> None:
    sent = counting_on(asked=True)
    answer = Answer(EVENTS, [bytes([one]) for one in sent], pause=0.0005)
    got = nginx.ask("v1/chat/completions", answer, headers=ASKING)
    assert got == counting_on(asked=False)


def test_a_client_that_asked_itself_sees_all_of_it(nginx: Metering) -> None:
    place = {"is_true": True}
    judged = json.dumps({"stream": True, "places": {"open": 1, "include_usage": place}})
    sent = ollama_completions(asked=True)
    got = nginx.ask(
        "v1/completions", Answer(EVENTS, [sent]), headers={"asks": "1", "judged": judged}
    )
    assert got == sent


def test_nothing_waits_for_more_than_its_own_line(nginx: Metering) -> None:
    said = events({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]})
    # A comment, a chunk, the begin of a line; then a line too long to wait for.
    parts = [b": alive\n\n", said, b"data: " + b"x" * 70_000, b"x\n\n"]
    answer = Answer(EVENTS, parts, pause=0.3)
    connection = nginx.connect("v1/chat/completions", answer, b"{}", ASKING)
    response = connection.getresponse()
    begun = time.monotonic()
    assert response.read(len(parts[0])) == parts[0]
    assert response.read(len(said)) == said
    assert response.read(len(parts[2])) == parts[2]
    assert time.monotonic() - begun < 0.85
    assert response.read() == parts[3]
    connection.close()


def _random(dice: random.Random, depth: int = 0) -> Any:
    """JSON as anybody may write it, with words of ours where they mean nothing."""
    kind = dice.randrange(4 if depth > 3 else 6)
    if kind < 2:
        return dice.choice([0, -1.5e300, True, None, ""])
    if kind < 4:
        return "".join(
            dice.choices(['"', "\\", "usage", ":", ",", "{", "}", "[", "]", "\n", "é"], k=8)
        )
    if kind == 4:
        return [_random(dice, depth + 1) for _ in range(dice.randrange(4))]
    names = dice.sample(["usage", "a", "choices", 'x"y', "\\"], dice.randrange(4))
    return {name: _random(dice, depth + 1) for name in names}


def test_only_the_outermost_usage_is_taken_out_of_any_json(nginx: Metering) -> None:
    dice = random.Random(5)  # noqa: S311 - the same texts each time
    given, wanted = [], []
    for number in range(600):
        members = list({name: _random(dice) for name in "abc"[: number % 4]}.items())
        usage = {"usage": {} if number % 5 == 0 else {"n": _random(dice)}}
        place = dice.randrange(len(members) + 1)
        separators = dice.choice([(",", ":"), (", ", ": ")])
        whole = dict([*members[:place], *usage.items(), *members[place:]])
        given.append(json.dumps(whole, separators=separators))
        wanted.append(json.loads(json.dumps(dict(members))))
    code = "local answers, json, found = require('gateway_answers'), require('cjson'), {} "
    code += f"for place, text in ipairs(json.decode([==[{json.dumps(given)}]==])) do "
    code += "found[place] = answers.without_usage(text) or 'none' end return found"
    (found,) = nginx.do(code)
    assert [json.loads(text) for text in found] == wanted
