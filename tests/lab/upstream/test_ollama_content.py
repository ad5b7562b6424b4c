"""What is in the stand-in's answers of status 200, as in the real server's.

Each row was first seen on the real server (0.32.7 and 0.33.0-rc2).
"""

import json
from typing import Any

import pytest

from tests.lab.upstream.rig import FRANCE, MODEL, Lab, Server


def test_tags(cold: Server) -> None:
    models = cold.call("/api/tags").json()["models"]
    assert [m["modified_at"] for m in models] == sorted(
        (m["modified_at"] for m in models), reverse=True
    )
    (entry,) = [m for m in models if m["name"] == MODEL]
    assert {"completion", "tools", "thinking"} <= set(entry["capabilities"])
    details = entry["details"]
    assert (details["context_length"], details["embedding_length"]) == (32768, 640)


def test_show(lab: Lab) -> None:
    server = lab.start()
    shown = server.call("/api/show", {"model": "tiny"}).json()
    assert shown["template"] == "{{ .Prompt }}"
    tensors = {tensor["name"]: tensor for tensor in shown["tensors"]}
    assert tensors["token_embd.weight"]["shape"] == [640, 262144]
    assert tensors["output_norm.weight"]["type"] == "F32"
    parameters = {f"num_{name}": 5 for name in ("ctx", "keep", "batch", "predict", "thread")}
    body: dict[str, Any] = {"model": "new", "from": MODEL, "parameters": parameters}
    assert server.lines("/api/create", body)[-1] == {"status": "success"}
    answers = [server.call("/api/show", {"model": "new"}).json() for _ in range(20)]
    assert {answer["details"]["parent_model"] for answer in answers} == {MODEL}
    orders = {answer["parameters"] for answer in answers}
    assert len(orders) > 1
    assert len({tuple(sorted(order.splitlines())) for order in orders}) == 1


def test_create_calls_the_base_s_layers_new(lab: Lab) -> None:
    body: dict[str, Any] = {"model": "new", "from": MODEL, "parameters": {"num_ctx": 256}}
    said = [line["status"] for line in lab.start().lines("/api/create", body)]
    assert [text.rsplit(" ", 1)[0] for text in said if "layer" in text] == [
        "creating new layer", "creating new layer", "creating new layer", "using existing layer",
    ]  # fmt: skip


@pytest.mark.parametrize("raw", [False, True])
def test_context_of_generate(shared: Server, raw: bool) -> None:
    body = {"model": MODEL, "prompt": "What is the capital of France?", "raw": raw}
    body["options"] = {"num_predict": 6}
    lines = shared.lines("/api/generate", body)
    assert not any("context" in line for line in lines[:-1])
    last = lines[-1]
    context = last.get("context", [])
    assert bool(context) != raw
    if not raw:
        assert len(context) >= last["prompt_eval_count"] + last["eval_count"] - 1
        assert shared.ask("/api/generate", body)[1]["context"] == context


@pytest.mark.parametrize(
    ("path", "body"),
    [("/api/generate", {"prompt": "Once"}), ("/api/chat", {"messages": FRANCE})],
)
def test_logprobs(shared: Server, path: str, body: dict[str, Any]) -> None:
    asked = {"model": MODEL, **body, "logprobs": True, "options": {"num_predict": 4, "stop": []}}
    status, answer = shared.ask(path, {**asked, "top_logprobs": 3})
    assert status == 200
    assert 3 <= len(answer["logprobs"]) <= 4
    first = answer["logprobs"][0]
    assert first["logprob"] <= 0
    assert [one["token"] for one in first["top_logprobs"]].count(first["token"]) == 1
    assert len(first["top_logprobs"]) == 3
    status, answer = shared.ask(path, asked)
    assert "top_logprobs" not in answer["logprobs"][0]
    assert "logprobs" not in shared.ask(path, {**asked, "logprobs": False})[1]


def test_native_stream_has_no_empty_extra_piece(shared: Server) -> None:
    *pieces, last = shared.lines("/api/chat", {"model": MODEL, "messages": FRANCE})
    assert all(piece["message"]["content"] for piece in pieces)
    assert last["done"]


def test_openai_stream_ends_with_an_empty_delta(shared: Server) -> None:
    body = {"model": MODEL, "messages": FRANCE, "stream": True, "temperature": 0}
    text = shared.call("/v1/chat/completions", body).text.removesuffix("data: [DONE]\n\n")
    choice = json.loads(text.strip().split("\n\n")[-1].removeprefix("data: "))["choices"][0]
    assert (choice["delta"], choice["finish_reason"]) == ({}, "stop")


def test_what_only_the_other_endpoint_knows_is_ignored(shared: Server) -> None:
    chat = {"model": MODEL, "messages": FRANCE, "raw": True, "template": "x", "prompt": "x"}
    status, answer = shared.ask("/api/chat", chat)
    assert (status, "Paris" in answer["message"]["content"]) == (200, True)
    options = {"num_predict": 2}
    whole = {"model": "tiny", "prompt": "Once", "tools": [{}], "messages": FRANCE}
    status, answer = shared.ask("/api/generate", {**whole, "options": options})
    assert (status, bool(answer["response"])) == (200, True)
