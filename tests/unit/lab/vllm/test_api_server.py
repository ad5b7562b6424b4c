"""The stand-in for vLLM says and does what the real one was seen to."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.unit.lab.vllm.standing_in import CHAT, FORBIDDEN, PATIENCE, serving, started, until


def _events(answer: http.client.HTTPResponse) -> list[Any]:
    lines = answer.read().decode().split("\n\n")
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(item) if item != "[DONE]" else item for item in data]


def test_it_is_not_ready_at_once_and_heeds_no_sigterm_until_then(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with started(tmp_path, "--uds", str(path), environment={"LAB_VLLM_READY_AFTER": "2"}) as vllm:
        until(path.exists)
        with socket.socket(socket.AF_UNIX) as link, pytest.raises(ConnectionRefusedError):
            link.connect(str(path))
        vllm.process.terminate()

        def answers() -> bool:
            with socket.socket(socket.AF_UNIX) as link:
                return link.connect_ex(str(path)) == 0

        until(answers)
        assert vllm.process.poll() is None
        vllm.process.kill()
        vllm.process.wait()
        assert path.exists()  # it takes nothing away


def test_models_and_names(tmp_path: Path) -> None:
    with serving(tmp_path) as vllm:
        assert vllm.ask("GET", "/health") == (200, "")
        models = json.loads(vllm.ask("GET", "/v1/models")[1])["data"]
        assert [item["id"] for item in models] == ["tiny", "other/tiny"]
        assert {item["root"] for item in models} == {str(tmp_path / "model")}
        assert models[0]["max_model_len"] == 512
        assert vllm.ask("GET", "/v1/models/tiny") == (404, '{"detail":"Not Found"}')
        assert vllm.ask("POST", "/api/chat", CHAT) == (404, '{"detail":"Not Found"}')
        assert vllm.chat(model="other/tiny")["model"] == "tiny"
        assert json.loads(vllm.ask("POST", "/v1/chat/completions", {"messages": []})[1])


def test_errors(tmp_path: Path) -> None:
    with serving(tmp_path) as vllm:

        def error(body: Any) -> tuple[int, Any]:
            status, text = vllm.ask("POST", "/v1/chat/completions", body)
            return status, json.loads(text)["error"]

        assert error({**CHAT, "model": "nope"}) == (
            404,
            {
                "message": "The model `nope` does not exist. Valid aliases: tiny, other/tiny.",
                "type": "NotFoundError", "param": "model", "code": 404,
            },
        )  # fmt: skip
        status, said = error({**CHAT, "messages": [{"role": "user", "content": "a " * 600}]})
        assert (status, said["param"]) == (400, "input_tokens")
        assert error({**CHAT, "max_tokens": 900})[0] == 400
        assert error("{")[0] == 400
        assert error({**CHAT, "tools": [{"type": "function", "function": {"name": "f"}}]})[0] == 400
        assert vllm.ask("GET", "/v1/chat/completions")[0] == 405
        assert vllm.chat(num_ctx=3, keep_alive=0)["choices"][0]["finish_reason"] == "stop"


def test_whole_and_streamed(tmp_path: Path) -> None:
    flags = ("--enable-auto-tool-choice", "--tool-call-parser", "openai")
    with serving(tmp_path, *flags) as vllm:
        whole = vllm.chat(max_tokens=3)
        choice = whole["choices"][0]
        assert choice["finish_reason"] == "length"
        assert choice["message"]["content"] == "one two three"
        assert choice["message"]["reasoning"]
        assert whole["usage"]["completion_tokens"] == 3
        bare = _events(vllm.stream(max_tokens=3))
        assert bare[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert bare[-1] == "[DONE]"
        assert not any(item.get("usage") for item in bare[:-1])
        told = _events(vllm.stream(max_tokens=3, stream_options={"include_usage": True}))
        assert told[-2]["choices"] == []
        assert told[-2]["usage"] == whole["usage"]
        call = vllm.chat(
            messages=[{"role": "user", "content": "call lookup"}],
            tools=[{"type": "function", "function": {"name": "lookup"}}],
        )["choices"][0]
        assert call["finish_reason"] == "tool_calls"
        assert call["message"]["tool_calls"][0]["function"]["name"] == "lookup"


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        ("/v1/completions", {"prompt": "hello"}, "[DONE]"),
        ("/v1/responses", {"input": "hello"}, "response.completed"),
        ("/v1/messages", {"messages": CHAT["messages"], "max_tokens": 5}, "message_stop"),
    ],
)
def test_other_apis(tmp_path: Path, path: str, body: dict[str, Any], last: str) -> None:
    with serving(tmp_path) as vllm:
        status, text = vllm.ask("POST", path, {"model": "tiny", **body})
        assert (status, json.loads(text)["model"]) == (200, "tiny")
        status, text = vllm.ask("POST", path, {"model": "tiny", **body, "stream": True})
        assert status == 200
        assert last in text.rstrip().rpartition("\n")[2]
        status, text = vllm.ask("POST", "/v1/messages/count_tokens", {"messages": []})
        assert json.loads(text)["input_tokens"] > 0


def test_a_key_guards_what_is_below_v1_and_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path, VLLM_API_KEY="secret") as vllm:
        refused = (401, '{"error":"Unauthorized"}')
        assert vllm.ask("GET", "/v1/models") == refused
        assert vllm.ask("GET", "/v1/models", headers={"x-api-key": "secret"}) == refused
        assert vllm.ask("GET", "/v1/models", headers={"Authorization": "Bearer secret"})[0] == 200
        assert vllm.ask("POST", "/invocations", CHAT)[0] == 200
        for path in ("/health", "/metrics", "/version", "/load"):
            assert vllm.ask("GET", path)[0] == 200


@pytest.mark.parametrize("how", ["503", "200"])
def test_one_too_many(tmp_path: Path, how: str) -> None:
    flags = ("--max-num-seqs", "2", "--max-num-queued-reqs", "3")
    slow = {"LAB_VLLM_TOKENS_PER_SECOND": "10", "LAB_VLLM_OVERFLOW": how}
    with serving(tmp_path, *flags, **slow) as vllm, ThreadPoolExecutor(3) as pool:
        first = [pool.submit(vllm.stream) for _ in range(3)]
        until(lambda: vllm.metric("num_requests_waiting") == 1)
        until(lambda: vllm.metric("num_requests_running") == 2)
        refused = vllm.stream()
        if how == "503":
            assert refused.status == 503
            assert "currently busy" in json.loads(refused.read())["error"]["message"]
        else:
            assert refused.status == 200
            error, done = _events(refused)
            assert (error["error"]["code"], done) == (503, "[DONE]")
        assert vllm.metric("admission_rejections_total") == 1
        assert {_events(item.result())[-1] for item in first} == {"[DONE]"}


def test_sigterm_aborts_streams_that_look_like_answers(tmp_path: Path) -> None:
    with serving(tmp_path, LAB_VLLM_TOKENS_PER_SECOND="10") as vllm:
        stream = vllm.stream()
        vllm.process.terminate()
        events = _events(stream)
        assert stream.status == 200
        assert (events[-2]["choices"][0]["finish_reason"], events[-1]) == ("abort", "[DONE]")
        assert vllm.process.wait(PATIENCE) == 0


def test_a_shutdown_timeout_lets_streams_end_and_lasts_to_its_end(tmp_path: Path) -> None:
    slow = {"LAB_VLLM_TOKENS_PER_SECOND": "20"}
    with serving(tmp_path, "--shutdown-timeout", "2", **slow) as vllm:
        stream = vllm.stream()
        began = time.monotonic()
        vllm.process.terminate()
        until(lambda: vllm.ask("POST", "/v1/chat/completions", CHAT)[0] == 500)
        assert "after shutdown" in vllm.ask("POST", "/v1/chat/completions", CHAT)[1]
        assert vllm.ask("GET", "/health")[0] == 200
        assert _events(stream)[-2]["choices"][0]["finish_reason"] == "stop"
        assert vllm.process.wait(PATIENCE) == 0
        assert time.monotonic() - began >= 2


@pytest.mark.parametrize("name", ["VLLM::EngineCore", "VLLM::Worker"])
def test_death_of_the_engine_is_no_failure(tmp_path: Path, name: str) -> None:
    with serving(tmp_path) as vllm:
        assert vllm.chat()
        os.kill(vllm.child(name), signal.SIGKILL)
        until(lambda: vllm.ask("GET", "/health")[0] == 503)
        assert vllm.process.wait(PATIENCE) == 0


def test_a_frozen_engine_is_healthy_and_answers_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as vllm, ThreadPoolExecutor(1) as pool:
        assert vllm.chat()
        made = vllm.metric("generation_tokens_total")
        frozen = vllm.child("VLLM::Worker")
        os.kill(frozen, signal.SIGSTOP)
        asked = pool.submit(vllm.chat)
        time.sleep(1)
        assert not asked.done()
        assert vllm.ask("GET", "/health")[0] == 200
        assert vllm.metric("num_requests_running") == 0
        assert vllm.metric("generation_tokens_total") == made
        os.kill(frozen, signal.SIGCONT)
        assert asked.result(PATIENCE)


def test_a_unit_that_forbids_what_the_worker_maps_ends_at_the_first_request(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, **FORBIDDEN) as vllm:
        assert vllm.ask("GET", "/health")[0] == 200
        status, text = vllm.ask("POST", "/v1/chat/completions", CHAT)
        assert (status, "EngineCore encountered an issue" in text) == (500, True)
        assert vllm.process.wait(PATIENCE) == 0


def test_the_worker_listens_on_loopback(tmp_path: Path) -> None:
    with serving(tmp_path) as vllm:
        assert vllm.chat()
        held = Path(f"/proc/{vllm.child('VLLM::Worker')}/fd").iterdir()
        assert sum("socket:" in str(item.readlink()) for item in held) >= 13


def test_what_vllm_does_not_know_is_refused(tmp_path: Path) -> None:
    with started(tmp_path, "--no-such-flag") as vllm:
        assert vllm.process.wait(PATIENCE) == 2
    with started(tmp_path, "--max-model-len", "513") as vllm:
        assert vllm.process.wait(PATIENCE) == 1
