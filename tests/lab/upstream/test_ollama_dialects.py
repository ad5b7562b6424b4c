"""The stand-in ``ollama`` in the two newer dialects, to the public clients.

Each row was first seen on the real server.
"""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.lab.upstream.rig import FRANCE, MODEL, Server

PICTURE = "iVBORw0KGgo="


@pytest.fixture
def over_openai(shared: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def over_anthropic(shared: Server) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=shared.url, api_key="any", max_retries=0) as client:
        yield client


INPUTS: list[Any] = [
    "What is the capital of France?",
    FRANCE,
    [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": FRANCE[0]["content"]}]},
    ],
]


@pytest.mark.parametrize("given", INPUTS, ids=["text", "turns", "parts"])
def test_response(over_openai: openai.OpenAI, given: Any) -> None:
    whole = over_openai.responses.create(model=MODEL, input=given, temperature=0)
    assert "Paris" in whole.output_text
    assert (whole.status, whole.object, whole.model) == ("completed", "response", MODEL)
    assert whole.usage
    assert whole.usage.total_tokens == whole.usage.input_tokens + whole.usage.output_tokens > 4


def test_response_stream(over_openai: openai.OpenAI) -> None:
    with over_openai.responses.stream(
        model=MODEL, input="What is the capital of France?", instructions="Be brief.", temperature=0
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 2
    assert "".join(deltas) == final.output_text
    assert "Paris" in final.output_text


def test_response_cut_by_its_limit(over_openai: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "input": FRANCE, "max_output_tokens": 2}
    cut = over_openai.responses.create(**asked)
    assert cut.status == "incomplete"
    assert cut.incomplete_details
    assert cut.incomplete_details.reason == "max_output_tokens"
    events = list(over_openai.responses.create(**asked, stream=True))
    assert events[-1].type == "response.incomplete"


def test_response_in_a_form(over_openai: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    form: Any = {"format": {"type": "json_schema", "name": "place", "schema": schema}}
    answer = over_openai.responses.create(
        model=MODEL, input=INPUTS[0], text=form, reasoning={"effort": "none"}, max_output_tokens=60
    )
    assert "city" in json.loads(answer.output_text)


def test_response_refused(over_openai: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="model 'nope' not found"):
        over_openai.responses.create(model="nope", input="x")
    with pytest.raises(openai.BadRequestError, match="model is required"):
        over_openai.responses.create(model="", input="x")
    with pytest.raises(openai.BadRequestError, match="input is required"):
        over_openai.responses.create(model=MODEL)
    picture: Any = [
        {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}", "detail": "auto"}
    ]
    with pytest.raises(openai.BadRequestError, match="Multimodal data provided"):
        over_openai.responses.create(model=MODEL, input=[{"role": "user", "content": picture}])


def test_message(over_anthropic: anthropic.Anthropic) -> None:
    turns: list[Any] = [
        FRANCE,
        [{"role": "user", "content": [{"type": "text", "text": FRANCE[0]["content"]}]}],
    ]
    for messages in turns:
        whole = over_anthropic.messages.create(
            model=MODEL, max_tokens=40, system="Be brief.", messages=messages
        )
        assert "Paris" in whole.content[0].text
        assert (whole.stop_reason, whole.role, whole.model) == ("end_turn", "assistant", MODEL)
        assert whole.usage.input_tokens > whole.usage.output_tokens > 2
    cut = over_anthropic.messages.create(model=MODEL, max_tokens=2, messages=turns[0])
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)


def test_message_stream(over_anthropic: anthropic.Anthropic) -> None:
    messages: Any = FRANCE
    with over_anthropic.messages.stream(model=MODEL, max_tokens=40, messages=messages) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert "".join(pieces) == final.content[0].text
    assert "Paris" in final.content[0].text
    assert (final.stop_reason, final.usage.output_tokens > 2) == ("end_turn", True)


def test_message_refused(over_anthropic: anthropic.Anthropic, shared: Server) -> None:
    messages: Any = FRANCE
    with pytest.raises(anthropic.NotFoundError, match="model 'nope' not found") as refused:
        over_anthropic.messages.create(model="nope", max_tokens=2, messages=messages)
    assert refused.value.type == "not_found_error"
    picture = {"type": "base64", "media_type": "image/png", "data": PICTURE}
    parts: Any = [{"role": "user", "content": [{"type": "image", "source": picture}]}]
    with pytest.raises(anthropic.BadRequestError, match="Multimodal data provided"):
        over_anthropic.messages.create(model=MODEL, max_tokens=2, messages=parts)
    for body in ({}, {"model": MODEL}, {"model": MODEL, "max_tokens": 2}):
        answer = shared.call("/v1/messages", body)
        assert (answer.status_code, answer.json()["type"]) == (400, "error")
    assert shared.call("/v1/messages/count_tokens", {"model": MODEL}).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "x"}),
        ("/v1/messages", {"messages": FRANCE, "max_tokens": 2}),
        ("/v1/chat/completions", {"messages": FRANCE, "max_tokens": 2}),
        ("/v1/models", None),
    ],
)
def test_answers_of_v1_name_no_charset(shared: Server, path: str, body: Any) -> None:
    answer = shared.call(path, {"model": MODEL, **body} if body else None)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")


WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
FUNCTION: dict[str, Any] = {"name": "get_weather", "parameters": WEATHER}
CHAT_TOOL: Any = {"type": "function", "function": FUNCTION}
CALL: Any = [{"role": "user", "content": "How is the weather in Paris? Use get_weather."}]


def test_tool_of_ollama(shared: Server) -> None:
    body = {"model": MODEL, "messages": CALL, "tools": [CHAT_TOOL]}
    status, answer = shared.ask("/api/chat", body)
    assert (status, answer["done_reason"], answer["message"]["content"]) == (200, "stop", "")
    [call] = answer["message"]["tool_calls"]
    assert call["function"] == {
        "index": 0,
        "name": "get_weather",
        "arguments": {"city": "Paris"},
    }
    first, last = shared.lines("/api/chat", body)
    assert [call["function"] for call in first["message"]["tool_calls"]] == [call["function"]]
    assert (first["done"], last["done"], last["eval_count"] > 2) == (False, True, True)
    told = [*CALL, answer["message"], {"role": "tool", "tool_name": "get_weather", "content": "21"}]
    status, answer = shared.ask("/api/chat", {**body, "messages": told})
    assert (status, "tool_calls" in answer["message"]) == (200, False)


def test_tool_of_openai_chat(over_openai: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": CALL, "tools": [CHAT_TOOL]}
    choice = over_openai.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls or []
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == FUNCTION_OF_PARIS
    with over_openai.chat.completions.stream(**asked) as stream:
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == FUNCTION_OF_PARIS


FUNCTION_OF_PARIS = ("get_weather", {"city": "Paris"})


def test_tool_of_a_response(over_openai: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "input": CALL, "tools": [{"type": "function", **FUNCTION}]}
    whole = over_openai.responses.create(**asked)
    with over_openai.responses.stream(**asked) as stream:
        events = list(stream)
        streamed = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    for answer in (whole, streamed):
        [call] = answer.output
        assert (call.type, answer.status) == ("function_call", "completed")
        assert (call.name, json.loads(call.arguments)) == FUNCTION_OF_PARIS
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}
    told = [*CALL, call.model_dump(), output]
    assert over_openai.responses.create(**{**asked, "input": told}).output[0].type == "message"


def test_tool_of_anthropic(over_anthropic: anthropic.Anthropic) -> None:
    asked: Any = {"model": MODEL, "max_tokens": 99, "messages": CALL}
    asked["tools"] = [{"name": "get_weather", "input_schema": WEATHER}]
    whole = over_anthropic.messages.create(**asked)
    with over_anthropic.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    for answer in (whole, streamed):
        [call] = answer.content
        assert (call.type, answer.stop_reason) == ("tool_use", "tool_use")
        assert (call.name, call.input) == FUNCTION_OF_PARIS
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "21 degrees"}
    told = [*CALL, {"role": "assistant", "content": [call.model_dump(exclude_none=True)]}]
    told.append({"role": "user", "content": [result]})
    assert over_anthropic.messages.create(**{**asked, "messages": told}).content[0].type == "text"


def test_tool_that_is_not_asked_for(over_openai: openai.OpenAI) -> None:
    """A model may do without; this one does where nothing names it."""
    messages: Any = FRANCE
    answer = over_openai.chat.completions.create(
        model=MODEL, messages=messages, tools=[CHAT_TOOL], temperature=0
    )
    assert answer.choices[0].message.tool_calls is None
    assert "Paris" in (answer.choices[0].message.content or "")
