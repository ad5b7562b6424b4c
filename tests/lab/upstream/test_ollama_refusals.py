"""The stand-in ``ollama`` refuses, cuts and redirects like the real one.

Each row was first seen on the real server (0.32.7 and 0.33.0-rc2).
"""

import base64
import shutil
from typing import Any

import pytest

from tests.lab.upstream.gguf import pooled
from tests.lab.upstream.rig import FRANCE, MODEL, WEIGHTS, Lab, Server

NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"
NO_IMAGES = "Multimodal data provided, but model does not support multimodal requests."
PICTURE = base64.b64encode(b"\x89PNG\r\n").decode()
LONG = "Once upon a time there was a king. " * 200


def said(answer: Any) -> str:
    """Return the error of an answer, native or OpenAI's."""
    error = answer["error"]
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/embed", {"input": "x"}, 501),
        ("/v1/embeddings", {"input": "x"}, 501),
        ("/api/embeddings", {"prompt": "x"}, 500),
    ],
)
def test_a_chat_model_makes_no_embeddings(
    shared: Server, path: str, body: dict[str, Any], status: int
) -> None:
    got, answer = shared.ask(path, {"model": MODEL, **body})
    assert (got, said(answer)) == (status, NO_EMBEDDINGS)


def test_a_model_that_says_how_it_pools_makes_embeddings(lab: Lab) -> None:
    def pool(server: Server) -> None:
        pooled(server.blob, server.blob.with_name("pooled"))
        server.blob.with_name("pooled").rename(server.blob)

    server = lab.start(before=pool)
    status, answer = server.ask("/api/embed", {"model": "tiny", "input": ["one text", "another"]})
    assert status == 200
    assert [round(sum(x * x for x in v), 3) for v in answer["embeddings"]] == [1, 1]
    line = " ".join(server.command_line())
    assert " -b 2048 -ub 2048 " in line
    assert " --embedding" in line
    # The logits of a batch: 2048 x 262144 words x 4 bytes, beside 0.25 GB of weights.
    assert 2.4e9 < server.running()[0]["size"] < 2.5e9
    assert "embedding" in server.call("/api/tags").json()["models"][0]["capabilities"]
    assert server.ask("/api/embeddings", {"model": "tiny", "prompt": "x"})[0] == 200
    status, answer = server.ask("/v1/embeddings", {"model": "tiny", "input": ["a", "b"]})
    assert (status, len(answer["data"][1]["embedding"])) == (200, 640)
    body = {"model": "tiny", "input": LONG, "options": {"num_ctx": 256}}
    assert server.ask("/api/embed", body)[0] == 200
    status, answer = server.ask("/api/embed", {**body, "truncate": False})
    assert (status, said(answer)) == (400, "the input length exceeds the context length")
    status, answer = server.ask("/api/generate", {"model": "tiny", "prompt": "x"})
    assert (status, said(answer)) == (400, '"tiny" does not support generate')


IMAGE_PART = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "want"),
    [
        ("/api/generate", {"prompt": "x", "images": [PICTURE]}, NO_IMAGES),
        (
            "/api/chat",
            {"messages": [{"role": "user", "content": "x", "images": [PICTURE]}]},
            NO_IMAGES,
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [IMAGE_PART]}]},
            NO_IMAGES,
        ),
        ("/api/generate", {"prompt": "x", "images": ["%%"]}, "illegal base64 data"),
        ("/api/chat", {"messages": [{"role": "user", "images": ["%%"]}]}, "illegal base64 data"),
        ("/api/generate", {"prompt": "x", "suffix": "y"}, "gpt-oss:20b does not support insert"),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, "gpt-oss:20b does not support insert"),
    ],
)  # fmt: skip
def test_what_a_model_cannot_do_is_refused(
    shared: Server, path: str, body: dict[str, Any], want: str, *, streaming: bool
) -> None:
    answer = shared.call(path, {"model": MODEL, "stream": streaming, **body})
    assert answer.status_code == 400
    assert want in said(answer.json())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": LONG}),
        ("/api/chat", {"messages": [{"role": "user", "content": LONG}]}),
    ],
)
def test_a_prompt_longer_than_the_context_is_cut(
    shared: Server, path: str, body: dict[str, Any]
) -> None:
    asked = {"model": MODEL, "options": {"num_ctx": 512, "num_predict": 2, "stop": []}, **body}
    status, answer = shared.ask(path, asked)
    assert status == 200
    assert 400 < answer["prompt_eval_count"] <= 515
    status, answer = shared.ask(path, {**asked, "truncate": False})
    assert status == 500
    assert said(answer)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"messages": FRANCE}),
        ("/api/show", {}),
        ("/v1/chat/completions", {"messages": FRANCE}),
    ],
)
def test_a_model_is_required(cold: Server, path: str, body: dict[str, Any]) -> None:
    status, answer = cold.ask(path, {"model": "", **body})
    assert (status, said(answer)) == (400, "model is required")


@pytest.mark.parametrize(
    ("body", "status", "want"),
    [
        ({}, 400, "neither 'from' or 'files' was specified"),
        ({"from": MODEL, "template": "{{ if"}, 400, "template error"),
        ({"files": {"m.gguf": "sha256:" + "0" * 64}}, 500, "no such file"),
        ({"from": MODEL, "quantize": "q8_0"}, 500, "quantization is only supported"),
    ],
)
def test_create_refuses(lab: Lab, body: dict[str, Any], status: int, want: str) -> None:
    got, answer = lab.start().ask("/api/create", {"model": "new", **body})
    assert got == status
    assert want in said(answer)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/status", 200),
        ("POST", "/api/me", 200),
        ("POST", "/v1/audio/transcriptions", 400),
        ("POST", "/api/experimental/web_search", 503),
        ("GET", "/api/experimental/model-recommendations", 403),
        ("POST", "/api/push", 500),
    ],
)
def test_status_of_what_is_not_played(cold: Server, method: str, path: str, status: int) -> None:
    body = {"model": "x", "stream": False} if method == "POST" else None
    assert cold.call(path, body, method).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status", "to"),
    [
        ("GET", "/api/tags/", 301, "/api/tags"),
        ("GET", "/v1/models/?x=1", 301, "/v1/models?x=1"),
        ("POST", "/api/chat/", 307, "/api/chat"),
        ("GET", "//api/tags", 307, "/api/tags"),
        ("GET", "/api/./tags", 307, "/api/tags"),
        ("POST", "/api//chat?x=1", 307, "/api/chat?x=1"),
        ("GET", "/x/../api/tags", 307, "/api/tags"),
    ],
)
def test_odd_path_is_redirected(
    cold: Server, method: str, path: str, *, status: int, to: str
) -> None:
    answer = cold.raw(method, path)
    assert (answer.status, answer.headers["Location"]) == (status, to)


def test_zeroed_head_leaves_a_model_without_abilities(lab: Lab) -> None:
    def harm(server: Server) -> None:
        shutil.copyfile(server.blob, server.blob.with_name("own"))
        server.blob.with_name("own").rename(server.blob)
        with server.blob.open("r+b") as file:
            file.write(b"\0" * 4096)

    server = lab.start(before=harm)
    status, answer = server.ask("/api/chat", {"model": MODEL, "messages": FRANCE})
    assert (status, said(answer)) == (400, f'"{MODEL}" does not support chat')
    assert WEIGHTS.replace(":", "-") == server.blob.name
    assert server.call("/api/tags").json()["models"][0]["capabilities"] == []
