"""Each answer's tokens, in every dialect; and a client that sees nothing of how they are known."""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.metering import Answer, Metering, metering
from tests.unit.gateway.said import (
    ASKING,
    DONE,
    EVENTS,
    FAKE,
    LINES,
    TEXT,
    TOOL,
    USAGE,
    WHOLE,
    counted,
    events,
    named,
    native,
    packed,
)


@pytest.fixture(scope="module")
def nginx() -> Iterator[Metering]:
    with tempfile.TemporaryDirectory() as directory, metering(Path(directory)) as shown:
        yield shown
        # Servers that are lost on purpose are in it, and no fault of a program.
        assert "[lua]" not in shown.errors()
        assert "failed to run" not in shown.errors()


CALLS = [{"function": {"name": "f", "arguments": FAKE}}]
RESPONSE = {
    "input_tokens": 11, "output_tokens": 3, "total_tokens": 14,
    "input_tokens_details": {"cached_tokens": 4},
}  # fmt: skip
MESSAGE = {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 3}
TOLD = [
    ("api/chat", WHOLE, packed({"message": {"content": TEXT, "tool_calls": CALLS}, **DONE})),
    ("api/chat", LINES, native(
        {"message": {"content": "a"}, "done": False},
        {"message": {"content": "", "tool_calls": CALLS}, "done": False},
        {"message": {"content": ""}, **DONE},
    )),
    ("api/generate", WHOLE, packed({"response": TEXT, **DONE})),
    ("api/generate", LINES, native({"response": TEXT, "done": False}, {"response": "", **DONE})),
    ("v1/chat/completions", WHOLE, packed(
        {"choices": [{"message": {"content": TEXT, "tool_calls": TOOL}}], "usage": USAGE}
    )),
    ("v1/chat/completions", EVENTS, events(
        {"choices": [{"delta": {"content": TEXT}, "finish_reason": None}]},
        {"choices": [{"delta": {"tool_calls": TOOL}, "finish_reason": None}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": USAGE},
        done=True,
    )),
    ("v1/completions", WHOLE, packed({"choices": [{"text": TEXT}], "usage": USAGE})),
    # With a count of zero in each chunk, as Ollama writes it.
    ("v1/completions", EVENTS, events(
        {"choices": [{"text": "a", "finish_reason": None}], "usage": dict.fromkeys(USAGE, 0)},
        {"choices": [{"text": "", "finish_reason": "stop"}], "usage": dict.fromkeys(USAGE, 0)},
        {"choices": [], "usage": USAGE},
        done=True,
    )),
    # As older llama.cpp servers do.
    ("v1/chat/completions", EVENTS, events(
        {"choices": [{"delta": {"content": "a"}, "finish_reason": None}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USAGE},
        done=True,
    )),
    ("v1/responses", WHOLE, packed(
        {"id": "r", "output": [{"content": [{"text": TEXT}]}], "usage": RESPONSE, "user": None}
    )),
    ("v1/responses", EVENTS, named(
        {"type": "response.created", "response": {"usage": None}},
        {"type": "response.output_text.delta", "delta": TEXT},
        {"type": "response.function_call_arguments.delta", "delta": json.dumps(FAKE)},
        {"type": "response.completed", "response": {"output": [], "usage": RESPONSE}},
    )),
    ("v1/messages", WHOLE, packed(
        {"content": [{"text": TEXT}, {"type": "tool_use", "input": FAKE}], "usage": MESSAGE}
    )),
    ("v1/messages", EVENTS, named(
        {"type": "message_start", "message": {"usage": {"input_tokens": 99, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"text": TEXT}},
        {"type": "message_delta", "usage": MESSAGE},
        {"type": "message_stop"},
    )),
    # The prompt is told at the begin alone, as Anthropic once did.
    ("v1/messages", EVENTS, named(
        {"type": "message_start", "message": {"usage": {**MESSAGE, "output_tokens": 1}}},
        {"type": "content_block_delta", "delta": {"text": TEXT}},
        {"type": "message_delta", "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    )),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), TOLD)
def test_what_the_server_tells_is_what_counts(
    nginx: Metering, call: str, kind: str, text: bytes
) -> None:
    assert nginx.ask(call, Answer(kind, [text])) == text
    entry = nginx.last()
    assert counted(entry) == (11, 4, 3, False)
    assert (entry["first_token"] is None) == (kind == WHOLE)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("api/embed", {"embeddings": [[0.5] * 4], "total_duration": 1, "prompt_eval_count": 6}),
        ("v1/embeddings", {"data": [], "usage": {"prompt_tokens": 6, "total_tokens": 6}}),
    ],
)
def test_an_embedding_has_a_prompt_alone(
    nginx: Metering, call: str, answer: dict[str, Any]
) -> None:
    nginx.ask(call, Answer(WHOLE, [packed(answer)]))
    assert counted(nginx.last()) == (6, None, 0, False)
    assert nginx.last()["tokens_per_second"] is None


def test_an_embedding_that_tells_nothing_is_estimated_from_the_models_others(
    nginx: Metering,
) -> None:
    answer = packed({"embeddings": [], "prompt_eval_count": 50})
    nginx.ask("api/embed", Answer(WHOLE, [answer]), b"x" * 100, {"model": "embedder"})
    nginx.ask(
        "api/embeddings", Answer(WHOLE, [b'{"embedding":[]}']), b"x" * 60, {"model": "embedder"}
    )
    assert counted(nginx.last()) == (30, None, 0, True)


def test_a_load_has_no_tokens(nginx: Metering) -> None:
    answer = packed({"message": {"content": ""}, "done_reason": "load", "done": True})
    nginx.ask("api/chat", Answer(WHOLE, [answer]))
    assert counted(nginx.last()) == (0, None, 0, False)


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_what_was_refused_is_not_counted(nginx: Metering, status: int) -> None:
    answer = Answer(WHOLE, [packed({"error": "no", "usage": USAGE, **DONE})], status)
    nginx.ask("api/chat", answer)
    assert counted(nginx.last()) == (None, None, None, None)


def test_what_makes_no_tokens_is_not_counted(nginx: Metering) -> None:
    nginx.ask("v1/messages/count_tokens", Answer(WHOLE, [b'{"input_tokens":9}']))
    assert counted(nginx.last()) == (None, None, None, None)


@pytest.mark.parametrize("size", [10_000, 60_000, 500_000, 3_000_000])
@pytest.mark.parametrize(
    ("call", "before", "after"),
    [
        ("v1/chat/completions", {"choices": TEXT}, {"usage": USAGE, "kv_transfer_params": None}),
        ("api/chat", {"message": {"tool_calls": CALLS}}, DONE),
        ("api/generate", {"response": TEXT}, {**DONE, "context": list(range(1000))}),
        ("v1/responses", {"output": [FAKE, TEXT]}, {"usage": RESPONSE, "user": None}),
        ("v1/messages", {"content": [{"input": FAKE}]}, {"usage": MESSAGE}),
    ],
)
def test_a_large_answer_is_read_from_its_end(
    nginx: Metering, call: str, before: dict[str, Any], after: dict[str, Any], size: int
) -> None:
    text = packed({"fill": TEXT * (size // len(TEXT)), **before, **after})
    assert nginx.ask(call, Answer(WHOLE, [text])) == text
    assert counted(nginx.last()) == (11, 4, 3, False)


def test_a_large_event_is_read_from_its_end(nginx: Metering) -> None:
    response = {"output": [FAKE, TEXT * 40_000], "usage": RESPONSE, "user": None}
    text = named(
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.completed", "response": response, "sequence_number": 2},
    )
    assert nginx.ask("v1/responses", Answer(EVENTS, [text])) == text
    assert counted(nginx.last()) == (11, 4, 3, False)


def test_times_are_of_the_first_content_and_not_of_the_head(nginx: Metering) -> None:
    chunks = [
        events({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
        *[events({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]})] * 3,
        events({"choices": [], "usage": USAGE}, done=True),
    ]
    nginx.ask("v1/chat/completions", Answer(EVENTS, chunks, pause=0.3))
    entry = nginx.last()
    assert 0.28 < entry["first_token"] < 0.6
    # Two more tokens in two pauses.
    assert 2 < entry["tokens_per_second"] < 4


def test_the_server_knows_its_own_speed(nginx: Metering) -> None:
    nginx.ask("api/chat", Answer(WHOLE, [packed({"message": {"content": "a"}, **DONE})]))
    assert nginx.last()["tokens_per_second"] == 2.0


@pytest.mark.parametrize(
    ("body", "places", "wanted"),
    [
        ('{"stream":true}', {"open": 1},
         '{"stream_options":{"include_usage":true},"stream":true}'),
        ('{"stream_options":{}}', {"open": 1, "stream_options": {"open": 19, "is_empty": True}},
         '{"stream_options":{"include_usage":true}}'),
        ('{"stream_options":{"a":1}}', {"open": 1, "stream_options": {"open": 19}},
         '{"stream_options":{"include_usage":true,"a":1}}'),
        ('{"stream_options":{"include_usage":false}}',
         {"open": 1, "stream_options": {"open": 19}, "include_usage": [36, 40]},
         '{"stream_options":{"include_usage":true}}'),
        ('{"stream_options":{"include_usage":null}}',
         {"open": 1, "stream_options": {"open": 19}, "include_usage": [36, 39]},
         '{"stream_options":{"include_usage":true}}'),
    ],
)  # fmt: skip
def test_a_server_is_asked_on_the_clients_behalf(
    nginx: Metering, body: str, places: dict[str, Any], wanted: str
) -> None:
    for call in ("v1/chat/completions", "v1/completions"):
        (found,) = _edits(nginx, call, {"stream": True, "places": places})
        ((begin, end, text),) = found
        assert body[: begin - 1] + text + body[end:] == wanted


@pytest.mark.parametrize(
    ("call", "judged"),
    [
        ("v1/chat/completions", {"stream": False, "places": {"open": 1}}),
        ("v1/chat/completions", {"places": {"open": 1}}),
        ("v1/responses", {"stream": True, "places": {"open": 1}}),
        ("api/chat", {"stream": True, "places": {"open": 1}}),
        ("v1/embeddings", {"places": {"open": 1}}),
    ],
)
def test_nothing_is_asked_where_it_is_told_anyway(
    nginx: Metering, call: str, judged: dict[str, Any]
) -> None:
    assert _edits(nginx, call, judged) == [{}]


def _edits(nginx: Metering, call: str, judged: dict[str, Any]) -> Any:
    return nginx.do(
        f"local judged = require('cjson').decode([[{json.dumps(judged)}]])"
        f"return require('gateway_usage').edits('{call}', judged)"
    )


def _hang_up(connection: http.client.HTTPConnection, after: float) -> None:
    """Leave after `after` seconds, without reading to the end."""
    time.sleep(after)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()


def _teach(nginx: Metering, model: str) -> None:
    """Half a token a byte of the prompt, and ten tokens a second."""
    answer = packed({"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 5}})
    nginx.ask(
        "v1/chat/completions", Answer(WHOLE, [answer], before=0.5), b"x" * 100, {"model": model}
    )


@pytest.mark.parametrize(
    ("call", "kind", "part"),
    [
        ("v1/chat/completions", EVENTS, events({"choices": [{"delta": {"content": "a"}}]})),
        ("v1/chat/completions", EVENTS, events({"choices": [{"delta": {"reasoning": "a"}}]})),
        ("v1/completions", EVENTS, events(
            {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}
        )),
        ("api/chat", LINES, native({"message": {"thinking": "a"}, "done": False})),
        ("api/generate", LINES, native({"response": "a", "done": False})),
        ("v1/responses", EVENTS, named({"type": "response.output_text.delta", "delta": "a"})),
        ("v1/messages", EVENTS, named({"type": "content_block_delta", "delta": {"text": "a"}})),
    ],
)  # fmt: skip
def test_a_client_that_leaves_in_the_middle_has_used_what_was_made(
    nginx: Metering, call: str, kind: str, part: bytes
) -> None:
    model = f"left-{call}"
    _teach(nginx, model)
    answer = Answer(kind, [part] * 20, pause=0.1)
    _hang_up(nginx.connect(call, answer, b"x" * 60, {"model": model}), after=0.65)
    prompt, _, completion, estimated = counted(nginx.last())
    assert (prompt, estimated) == (30, True)
    assert 5 <= completion <= 9


def test_a_whole_answer_that_nobody_waited_for_took_its_time(nginx: Metering) -> None:
    _teach(nginx, "slow")
    answer = Answer(WHOLE, [packed({"choices": [], "usage": USAGE})], before=3)
    _hang_up(nginx.connect("v1/chat/completions", answer, b"x" * 60, {"model": "slow"}), after=1)
    entry = nginx.last()
    prompt, _, completion, estimated = counted(entry)
    assert entry["status"] == 499
    assert (prompt, estimated) == (30, True)
    assert 8 <= completion <= 12


def test_a_clock_that_is_set_back_meanwhile_takes_no_tokens_away(nginx: Metering) -> None:
    _teach(nginx, "set back")
    answer = Answer(WHOLE, [packed({"choices": [], "usage": USAGE})], before=3)
    connection = nginx.connect("v1/chat/completions", answer, b"x" * 60, {"model": "set back"})
    _set_clock(nginx, -3600)
    try:
        _hang_up(connection, after=1)
        assert counted(nginx.last())[0] == 30
        # Ten a second, of a second and what a busy machine needs besides.
        assert 8 <= counted(nginx.last())[2] <= 100
    finally:
        _set_clock(nginx, 0)


def _set_clock(nginx: Metering, shift: int) -> None:
    nginx.do(
        "usage.clock = usage.clock or ngx.now "
        f"ngx.now = function() return usage.clock() + {shift} end return 1"
    )


@pytest.mark.parametrize("asks", [{}, ASKING])
def test_a_server_that_dies_in_the_middle_has_made_what_came(
    nginx: Metering, asks: dict[str, str]
) -> None:
    _teach(nginx, "lost")
    part = events({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]})
    answer = Answer(EVENTS, [part] * 4, breaks=True)
    assert (
        nginx.ask("v1/chat/completions", answer, b"x" * 60, {"model": "lost", **asks}) == part * 4
    )
    assert counted(nginx.last()) == (30, None, 4, True)


def test_a_server_that_counts_as_it_goes_is_believed_when_it_is_cut_off(nginx: Metering) -> None:
    # Ten tokens a part, as servers send them that guess ahead.
    part = events({
        "choices": [{"delta": {"content": "a"}, "finish_reason": None}],
        "usage": {"prompt_tokens": 21, "completion_tokens": 40},
    })  # fmt: skip
    nginx.ask("v1/chat/completions", Answer(EVENTS, [part] * 4, breaks=True))
    assert counted(nginx.last()) == (21, None, 40, True)


def test_a_server_that_packs_tokens_is_known_by_its_whole_answers(nginx: Metering) -> None:
    part = events({"choices": [{"delta": {"content": "a"}, "finish_reason": None}]})
    told = events({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 40}})
    nginx.ask(
        "v1/chat/completions", Answer(EVENTS, [part * 10 + told]), headers={"model": "packer"}
    )
    nginx.ask(
        "v1/chat/completions", Answer(EVENTS, [part] * 4, breaks=True), headers={"model": "packer"}
    )
    assert counted(nginx.last())[2:] == (16, True)


def test_a_host_that_was_never_reached_has_made_nothing(nginx: Metering) -> None:
    backend = nginx.directory / "backend.sock"
    backend.rename(nginx.directory / "away.sock")
    try:
        nginx.ask("api/chat", Answer(WHOLE, []))
    finally:
        (nginx.directory / "away.sock").rename(backend)
    assert nginx.last()["status"] == 502
    assert counted(nginx.last()) == (None, None, None, None)
