"""The stand-in ``ollama`` answers like the real one, to the public clients and to odd requests.

Each row was first seen on the real server.
"""

import hashlib
import json
import re
import socket
from typing import Any

import ollama
import openai
import pytest
import requests

from tests.lab.upstream.rig import FRANCE, MODEL, WEIGHTS, Lab, Server

# The public clients


def test_ollama_client(lab: Lab, registry: str, request: pytest.FixtureRequest) -> None:
    server = lab.start(seed=False)
    client = ollama.Client(server.url)
    request.addfinalizer(client.close)
    far = f"{registry}/library/{MODEL}"
    progress = list(client.pull(far, insecure=True, stream=True))
    assert progress[-1].status == "success"
    seen = [p for p in progress if p.digest == WEIGHTS]
    assert seen[0].status == "pulling a5fd3b62230a"
    assert 0 < seen[0].total == 253113024 >= (seen[-1].completed or 0)
    client.copy(far, MODEL)
    (entry,) = [m for m in client.list().models if m.model == MODEL]
    manifest = server.models / "manifests/registry.ollama.ai/library/gpt-oss/20b"
    served = requests.get(f"http://{registry}/v2/library/gpt-oss/manifests/20b", timeout=10).content
    assert manifest.read_bytes() == served
    assert entry.digest == hashlib.sha256(served).hexdigest()
    shown = client.show(MODEL)
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities or [])
    assert (shown.modelinfo or {})["gemma3.context_length"] == 32768

    whole = client.chat(MODEL, messages=FRANCE)
    assert "Paris" in (whole.message.content or "")
    pieces = [
        part.message.content or "" for part in client.chat(MODEL, messages=FRANCE, stream=True)
    ]
    assert len(pieces) > 2
    assert "".join(pieces) == whole.message.content
    (running,) = client.ps().models
    assert (running.model, running.size_vram, running.context_length) == (MODEL, 0, 4096)

    client.create("short", from_=MODEL, parameters={"num_ctx": 2048}, system="Be brief.")
    assert "num_ctx                        2048" in (client.show("short").parameters or "")
    assert "Paris" in (client.chat("short", messages=FRANCE).message.content or "")
    assert client.ps().models[0].context_length == 2048
    for name in ("short", far, MODEL):
        client.delete(name)
    assert client.list().models == []
    assert list((server.models / "blobs").iterdir()) == []


def test_openai_client(shared: Server, request: pytest.FixtureRequest) -> None:
    client = openai.OpenAI(base_url=f"{shared.url}/v1", api_key="any")
    request.addfinalizer(client.close)
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).owned_by == "library"
    messages: Any = FRANCE
    whole = client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
    assert "Paris" in (whole.choices[0].message.content or "")
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage
    assert whole.usage.completion_tokens > 2
    stream = client.chat.completions.create(
        model=MODEL,
        messages=messages,
        temperature=0,
        reasoning_effort="high",
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    assert last.usage
    assert chunks[-1].choices[0].finish_reason == "stop"
    text = client.completions.create(model=MODEL, prompt="Hello!", temperature=0)
    assert text.choices[0].text
    with pytest.raises(openai.InternalServerError, match="does not support embeddings"):
        client.with_options(max_retries=0).embeddings.create(model=MODEL, input=["a", "b"])
    with pytest.raises(openai.NotFoundError, match="model 'nope:latest' not found"):
        client.models.retrieve("nope")


def test_openai_stream_ends_with_done(shared: Server) -> None:
    body = {"model": MODEL, "messages": FRANCE, "stream": True, "temperature": 0}
    answer = shared.call("/v1/chat/completions", body)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.text.endswith("data: [DONE]\n\n")


def test_formats(shared: Server) -> None:
    """A schema holds; it lets a model go on with spaces for ever, and a small one may."""
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
    }
    status, answer = shared.ask(
        "/api/chat",
        {
            "model": MODEL,
            "messages": FRANCE,
            "think": False,
            "format": schema,
            "options": {"num_predict": 120, "stop": []},
        },
    )
    assert status == 200
    _assert_held(answer["message"]["content"], answer["done_reason"])
    # Until a model's thinking has ended it is held to nothing, and this one never begins.
    status, answer = shared.ask("/api/chat", {"model": MODEL, "messages": FRANCE, "format": schema})
    assert "Paris" in answer["message"]["content"]
    body = {"model": MODEL, "messages": FRANCE, "max_tokens": 120, "stop": []}
    body |= {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
    status, answer = shared.ask("/v1/chat/completions", {**body, "reasoning_effort": "none"})
    choice = answer["choices"][0]
    _assert_held(choice["message"]["content"], choice["finish_reason"])


def _assert_held(text: str, reason: str) -> None:
    """That `text`, which ended for `reason`, is the object asked for, or the begin of it."""
    if reason == "stop":
        assert "city" in json.loads(text)
    else:
        assert reason == "length"
        assert re.fullmatch(r'\{\s*("city"\s*(:.*)?)?', text, re.DOTALL), text


# Answers that a deploy can trip on


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "want"),
    [
        ("GET", "/", None, 200, "Ollama is running"),
        ("HEAD", "/", None, 200, ""),
        ("POST", "/api/tags", {}, 405, "405 method not allowed"),
        ("GET", "/api/chat", None, 405, "405 method not allowed"),
        (
            "POST",
            "/api/push",
            {"model": "x"},
            500,
            {"error": "/api/push is not in the lab's stand-in"},
        ),
        ("GET", "/api/nope", None, 404, "404 page not found"),
        ("POST", "/api/chat", {"model": "nope"}, 404, {"error": "model 'nope' not found"}),
        ("POST", "/api/show", {"model": "nope"}, 404, {"error": "model 'nope:latest' not found"}),
        (
            "POST",
            "/api/embed",
            {"model": "nope"},
            404,
            {"error": 'model "nope" not found, try pulling it first'},
        ),
        ("DELETE", "/api/delete", {"model": "nope"}, 404, {"error": "model 'nope' not found"}),
        ("POST", "/api/pull", {"model": "a/b/c/d"}, 400, {"error": "invalid model name"}),
        ("POST", "/api/pull", {"model": "n.s/m"}, 400, {"error": "invalid model name"}),
        ("POST", "/api/pull", {"model": ""}, 400, {"error": "invalid model name"}),
        ("HEAD", f"/api/blobs/{WEIGHTS}", None, 200, ""),
        ("HEAD", f"/api/blobs/sha256:{'0' * 64}", None, 404, ""),
        (
            "POST",
            "/api/chat",
            {"model": "tiny", "messages": FRANCE, "think": True},
            400,
            {"error": '"tiny" does not support thinking'},
        ),
        (
            "POST",
            "/api/chat",
            {"model": "tiny", "messages": FRANCE, "tools": [{}]},
            400,
            {"error": "registry.ollama.ai/library/tiny:latest does not support tools"},
        ),
        (
            "POST",
            "/api/chat",
            {"model": "x:cloud"},
            403,
            {"error": "ollama cloud is disabled: remote model is unavailable"},
        ),
    ],
)
def test_answer(cold: Server, method: str, path: str, body: Any, *, status: int, want: Any) -> None:
    answer = cold.call(path, body, method)
    assert answer.status_code == status
    assert (answer.text if isinstance(want, str) else answer.json()) == want


@pytest.mark.parametrize("think", ["low", "medium", "high", True, False])
def test_think_is_accepted(shared: Server, think: Any) -> None:
    body = {"model": MODEL, "messages": FRANCE, "think": think}
    status, answer = shared.ask("/api/chat", body)
    assert (status, "Paris" in answer["message"]["content"]) == (200, True)


def test_wrong_think_is_refused(cold: Server) -> None:
    status, answer = cold.ask("/api/chat", {"model": MODEL, "messages": FRANCE, "think": "much"})
    assert status == 400
    assert 'invalid think value: "much"' in answer["error"]
    body = {"model": MODEL, "messages": FRANCE, "reasoning_effort": "much"}
    status, answer = cold.ask("/v1/chat/completions", body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_openai_error_form(cold: Server) -> None:
    status, answer = cold.ask("/v1/chat/completions", {"model": "nope", "messages": FRANCE})
    error = {
        "message": "model 'nope' not found",
        "type": "not_found_error",
        "param": None,
        "code": None,
    }
    assert (status, answer) == (404, {"error": error})


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("llm.example.com", 403),
        ("llm.example.com:21434", 403),
        ("localhost.localdomain", 403),
        (f"{socket.gethostname()}.example.com", 403),
        ("8.8.8.8", 403),
        ("localhost", 200),
        ("localhost:11434", 200),
        ("foo.localhost", 200),
        ("ollama.local", 200),
        ("x.internal", 200),
        ("10.1.2.3", 200),
        ("192.168.1.5:80", 200),
        ("[::1]:11434", 200),
        (socket.gethostname(), 200),
    ],
)
def test_host_header_on_loopback(cold: Server, host: str, status: int) -> None:
    answer = cold.call("/api/version", headers={"Host": host})
    assert answer.status_code == status
    assert (answer.content == b"") == (status == 403)


def test_host_header_elsewhere_is_free(lab: Lab) -> None:
    server = lab.start(OLLAMA_HOST="0.0.0.0:{port}")
    assert server.call("/api/version", headers={"Host": "llm.example.com"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "origin", "status"),
    [
        ("GET", "http://llm.example.com", 403),
        ("OPTIONS", "http://llm.example.com", 403),
        ("GET", "http://localhost:3000", 200),
        ("OPTIONS", "http://localhost:3000", 204),
        ("GET", "app://any", 200),
    ],
)
def test_origin(cold: Server, method: str, origin: str, status: int) -> None:
    answer = cold.call("/api/version", method=method, headers={"Origin": origin})
    assert answer.status_code == status


def test_origins_setting(lab: Lab) -> None:
    server = lab.start(OLLAMA_ORIGINS="https://*.example.com")
    for origin, status in (("https://a.example.com", 200), ("https://a.example.org", 403)):
        assert server.call("/api/version", headers={"Origin": origin}).status_code == status
