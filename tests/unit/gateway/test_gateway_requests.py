"""What the gateway lets through and what it says to the rest, by its own nginx."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.routed import until
from tests.unit.gateway.running import CHAT, PLAIN, Answer, Running, error, running


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as gateway:
        yield gateway


class TestWhatPasses:
    @pytest.mark.parametrize(
        ("path", "body"),
        [
            pytest.param("/api/chat", {
                **CHAT, "stream": False, "format": {"type": "object", "properties": {"a": {}}},
                "think": "low", "logprobs": True, "top_logprobs": 2, "truncate": True,
                "tools": [{"type": "function", "function": {
                    "name": "f", "description": "", "parameters": {"shift": {"keep_alive": 1}},
                }}],
                "options": {"temperature": 0.1, "num_predict": 5, "stop": ["a"], "mirostat": 0},
            }, id="chat"),
            pytest.param("/api/chat", {"model": "m", "messages": [
                {"role": "assistant", "content": "", "thinking": "", "tool_calls": [
                    {"id": "1", "function": {"index": 0, "name": "f", "arguments": {"SHIFT": 1}}},
                ]},
                {"role": "tool", "content": "x", "tool_name": "f", "tool_call_id": "1"},
                {"role": "user", "content": "x", "images": ["aGk="]},
            ]}, id="a turn with tools"),
            pytest.param("/api/generate", {
                **PLAIN, "system": "s", "suffix": "", "context": [1, 2], "raw": True, "images": [],
            }, id="generate"),
            pytest.param("/api/generate", {
                **PLAIN, "keep_alive": None, "template": None, "options": {"num_ctx": None},
                "shift": None, "format": None,
            }, id="null is left out to Go"),
            pytest.param("/api/embed", {
                "model": "m", "input": ["a", "b"], "truncate": True, "dimensions": 8,
            }, id="embed"),
            pytest.param("/v1/chat/completions", {
                **CHAT, "stream": True, "stream_options": {"include_usage": True}, "n": 1,
                "reasoning_effort": "low", "max_completion_tokens": 5, "user": "u", "store": False,
                "metadata": {"a": "b"}, "tool_choice": "auto", "parallel_tool_calls": True,
                "response_format": {"type": "json_schema", "json_schema": {"name": "x"}},
                "logit_bias": {"5": 1}, "service_tier": "auto", "verbosity": "low",
            }, id="OpenAI chat"),
            pytest.param("/v1/embeddings", {
                "model": "m", "input": "x", "encoding_format": "base64", "user": "u",
            }, id="OpenAI embeddings"),
            pytest.param("/v1/responses", {
                "model": "m", "input": [{"role": "user", "content": [{"type": "input_text"}]}],
                "instructions": "i", "reasoning": {"effort": "low", "summary": "auto"},
                "store": False, "text": {"format": {"type": "text"}}, "include": [],
                "previous_response_id": None, "prompt_cache_key": "k", "client_metadata": {},
            }, id="responses"),
            pytest.param("/v1/messages", {
                **CHAT, "max_tokens": 5, "system": [{"type": "text", "text": "x"}],
                "thinking": {"type": "enabled", "budget_tokens": 5}, "metadata": {"user_id": "u"},
                "tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "auto"},
                "stop_sequences": [], "top_k": 1, "context_management": {"edits": []},
            }, id="Anthropic messages"),
            pytest.param("/v1/messages/count_tokens", CHAT, id="counting tokens"),
            pytest.param("/api/chat", " \r\n\t" + json.dumps(CHAT, indent=1) + "\n", id="spaces"),
            pytest.param("/api/generate", (
                b'{"model":"m","prompt":"a \\" } ] , \\\\\\" : \\\\","options":{}}'
            ), id="quotes in a text"),
            pytest.param("/api/generate", b'{"model":"m","prompt":"\xff\xfe\x01"}', id="no UTF-8"),
        ],
    )  # fmt: skip
    def test_reaches_the_server_as_it_was_sent(
        self, gateway: Running, path: str, body: Any
    ) -> None:
        answer = gateway.post(path, body)
        assert answer[0] == 200, answer
        sent = json.dumps(body) if isinstance(body, dict) else body
        sent = sent.encode() if isinstance(sent, str) else sent
        assert gateway.seen[-1] == (path, sent)

    @pytest.mark.parametrize(
        "path", ["//api/chat", "/api//chat", "/a%70i/chat", "/api/pull/../chat", "/api/./chat"]
    )
    def test_one_path_however_it_is_written(self, gateway: Running, path: str) -> None:
        """The server is asked at the very path that the request was judged for."""
        assert gateway.post(f"{path}?beta=true", CHAT)[0] == 200
        assert gateway.seen[-1][0] == "/api/chat?beta=true"

    def test_in_pieces_and_larger_than_memory_is_for(self, gateway: Running) -> None:
        """Every place at which a piece may end, in a text, a key or between backslashes."""
        text = b'{"prompt":"' + b'\\\\\\"\\u00e9' * 60_000 + b'" , "model" : "large" }'
        for shift in range(14):
            body = b" " * shift + text
            answer = gateway.post("/api/generate", body)
            assert answer[0] == 200, (shift, answer)
            assert gateway.seen[-1] == ("/api/generate", body)
        dropped = text[:-1] + b', "shift": false}'
        answer = gateway.post("/api/generate", dropped, "strict")
        assert (answer[0], "'shift'" in error(answer)) == (400, True)
        answer = gateway.post("/api/generate", dropped)
        assert (answer[0], answer[1]["x-ignored-fields"]) == (200, "shift")
        assert gateway.seen[-1] == ("/api/generate", text[:-1] + b"}")

    def test_models_are_in_the_log_as_servers_list_them(self, gateway: Running) -> None:
        bodies = {
            "hf.co/team/model_1.gguf:Q4": b'{"model":"hf.co\\/team\\/Model_1.gguf:Q4"}',
            "after:1": b'{"prompt":"\\"model\\":\\"first\\"","model":"after:1"}',
            "": b'{"prompt":{"model":"inner"}}',
        }
        for name, body in bodies.items():
            _, headers, _ = gateway.post("/api/generate", body)
            entry = _logged(gateway, headers["x-request-id"])
            assert (entry["model"], entry["status"]) == (name, 200 if name else 400)
        _, headers, _ = gateway.call("DELETE", "/hosts/gpu1/api/delete", "ops", '{"model":"old:1"}')
        assert _logged(gateway, headers["x-request-id"])["model"] == "old:1"

    @pytest.mark.parametrize("before", ["", "library/", "x" * 300])
    def test_a_key_in_the_place_of_a_model_is_not(self, gateway: Running, before: str) -> None:
        """Whoever mixes up two variables of a client's has not told all who read the log."""
        value = gateway.keys["plain"]
        for body in ({"model": before + value}, {"model": before + value.upper()}):
            _, headers, _ = gateway.post("/api/generate", body)
            entry = _logged(gateway, headers["x-request-id"])
            assert (entry["model"], entry["status"]) == ("(hidden)", 404)
        _, headers, _ = gateway.post("/api/generate", {"model": "m" * 400})
        assert len(_logged(gateway, headers["x-request-id"])["model"]) == 203

    def test_an_admin_says_to_one_host_what_it_likes(self, gateway: Running) -> None:
        body = {"model": "copy", "from": "m", "parameters": {"num_ctx": 5}, "new": {"a": 1}}
        assert gateway.post("/hosts/gpu1/api/create", body, "plain")[0] == 403
        for key in ("ops", "default"):
            assert gateway.post("/hosts/gpu1/api/create", body, key)[0] == 200
        assert gateway.seen[-1] == ("/api/create", json.dumps(body).encode())
        for body in ('{"Model":"a"}', '{"m\\u006fdel":"a"}', '{"model":"a","model":"b"}'):
            assert gateway.post("/hosts/gpu1/api/create", body, "ops")[0] == 400, body


class TestWhatIsDropped:
    """With a key whose overrides are ignored, as they are by default."""

    @pytest.mark.parametrize(
        ("path", "body", "left", "named"),
        [
            # What LlamaIndex, LangChain, Cline, Continue and Dify send.
            ("/api/chat", {**CHAT, "options": {"temperature": 0, "num_ctx": 32768}},
             {**CHAT, "options": {"temperature": 0}}, "options.num_ctx"),
            ("/api/chat", {"keep_alive": 1800, **CHAT, "options": {"num_ctx": 8192}},
             {**CHAT, "options": {}}, "keep_alive, options.num_ctx"),
            ("/api/generate", {**PLAIN, "keep_alive": 0, "SHIFT": True, "template": "x"},
             PLAIN, "keep_alive, SHIFT, template"),
            ("/v1/chat/completions", {**CHAT, "provider_specific": {"a": [1]}, "ttl": 0}, CHAT,
             "provider_specific, ttl"),
            ("/v1/embeddings", {"input_type": "query", "model": "m", "input": "x"},
             {"model": "m", "input": "x"}, "input_type"),
        ],
    )  # fmt: skip
    def test_reaches_no_server_and_is_named(
        self, gateway: Running, path: str, body: Any, left: Any, named: str
    ) -> None:
        status, headers, _ = gateway.post(path, body)
        assert (status, headers["x-ignored-fields"]) == (200, named)
        sent, text = gateway.seen[-1]
        assert (sent, json.loads(text)) == (path, left)

    def test_usage_is_asked_for_beside_it(self, gateway: Running) -> None:
        """What is put in and what is dropped may be neighbours."""
        chat = {**CHAT, "stream": True}
        asked = {"stream_options": {"include_usage": True}}
        for body, left in (
            ({"ttl": 1, **chat}, {**asked, **chat}),
            ({**chat, "stream_options": None}, {**asked, **chat}),
            ({"stream_options": {"new": 1}, **chat}, {**asked, **chat}),
            ({"stream_options": {"new": 1, "include_usage": None, "x": 2}, **chat},
             {**asked, **chat}),
            ({**chat, "stream_options": {"include_usage": False, "new": 1}, "ttl": 1},
             {**asked, **chat}),
        ):  # fmt: skip
            assert gateway.post("/v1/chat/completions", body)[0] == 200
            assert json.loads(gateway.seen[-1][1]) == left, body
            pairs = json.loads(gateway.seen[-1][1], object_pairs_hook=list)
            assert len({name for name, _ in pairs}) == len(pairs), "nothing stands there twice"

    def test_there_is_no_header_where_nothing_was(self, gateway: Running) -> None:
        assert "x-ignored-fields" not in gateway.post("/api/chat", CHAT)[1]
        for key in ("strict", "tuner", "ops"):
            assert "x-ignored-fields" not in gateway.post("/api/chat", CHAT, key)[1]

    def test_a_name_makes_no_header_of_its_own(self, gateway: Running) -> None:
        body = {**CHAT, "a\r\nx-evil: 1\r\n, b": 1, "x" * 500: 1}
        _, headers, _ = gateway.post("/api/chat", body)
        assert "x-evil" not in headers
        assert headers["x-ignored-fields"] == "a?r?nx-evil? 1?r?n? b, (a long name)"

    def test_from_a_large_body(self, gateway: Running) -> None:
        """One that waits in a file, and one whose edits lie in its middle."""
        long = {"role": "user", "content": "y" * 3_000_000}
        body = {"keep_alive": 0, "messages": [long, {**long, "new": 1}, long], "model": "m",
                "options": {"num_ctx": 1}}  # fmt: skip
        status, headers, _ = gateway.post("/api/chat", body)
        assert (status, headers["x-ignored-fields"]) == (
            200, "keep_alive, messages[].new, options.num_ctx",
        )  # fmt: skip
        sent = json.loads(gateway.seen[-1][1])
        assert sent == {"messages": [long, long, long], "model": "m", "options": {}}


class TestWhatDoesNot:
    @pytest.mark.parametrize(
        "field",
        [
            '"shift":false', '"SHIFT":false', '"\u017fhift":false', '"sh\\u0069ft":false',
            '"keep_alive":0', '"KEEP_ALIVE":0', '"\u212aeep_alive":0', '"keep\\u005falive":0',
            '"template":"{{ . }}"', '"Template":"x"', '"_debug_render_only":true',
            '"options":{"num_ctx":5}', '"Options":{"num_ctx":5}',
            '"options":{"draft_num_predict":1}',
            '"options":{},"options":{"num_ctx":5}', '"options":{"num_ctx":null,"num_ctx":5}',
            '"options":[{"num_ctx":5}]', '"options":"x"', '"options":{"num_ctx":{}}',
            '"options":{"new_option":1}', '"new_field":1', '"":1', '"width":10000',
            '"prompt":"x","prompt":"y"', '"prompt ":1', '"\ufeffprompt":1', '"prompt\\u0000":1',
            '"opt\\u0069ons":{"num_ctx":5}', '"messages\u0000":1', '"keep_alive":-1',
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("path", ["/api/generate"])
    def test_field(self, gateway: Running, path: str, field: str) -> None:
        """A 400 that names it, wherever it stands, and nothing reaches a server."""
        for body in (f'{{"model":"m",{field}}}', f'{{{field},"model":"m"}}'):
            before = len(gateway.seen)
            answer = gateway.post(path, body, "strict")
            assert answer[0] == 400, body
            assert re.match(r"'.+' ", error(answer)), answer
            assert len(gateway.seen) == before

    @pytest.mark.parametrize(
        ("path", "body", "named"),
        [
            ("/api/chat", {"messages": [{"role": "user"}, {"role": "a", "Content": 1}]},
             "messages[1].Content"),
            ("/api/chat", {"messages": {"role": "user"}}, "messages"),
            ("/api/chat", {"tools": [{"function": {"Name": "x"}}]}, "tools[0].function.Name"),
            ("/api/chat", {"messages": [{"tool_calls": [{"x": 1}]}]},
             "messages[0].tool_calls[0].x"),
            ("/v1/chat/completions", {"keep_alive": 1}, "keep_alive"),
            ("/v1/chat/completions", {"options": {"num_ctx": 1}}, "options"),
            ("/v1/chat/completions", {"stream_options": {"x": 1}}, "stream_options.x"),
            ("/v1/messages", {"Model": "m"}, "Model"),
            ("/v1/messages", {"model": 5}, "model"),
            ("/v1/messages", {"model": "a\nb"}, "model"),
            ("/v1/messages", {"model": "x" * 600}, "model"),
        ],
    )  # fmt: skip
    def test_named_in_the_dialect_of_the_path(
        self, gateway: Running, path: str, body: Any, named: str
    ) -> None:
        answer = gateway.post(path, body, "strict")
        said = error(answer)
        assert answer[0] == 400
        message = said if path.startswith("/api/") else said["message"]
        assert message.startswith(f"'{named}' ")
        if path == "/v1/chat/completions":
            assert (said["param"], said["code"]) == (named, "unknown_parameter")

    @pytest.mark.parametrize(
        "body",
        [
            "", " ", "x", "null", "[]", "5", '"x"', "{", '{"model"', '{"model":', '{"model":"m"',
            '{"model":"m"}x', '{"model":"m"}{"shift":true}', '{"model":"m"},',
            '\ufeff{"model":"m"}',
            '{"model":"m",}', '{,"model":"m"}', '{"model" "m"}', '{model:"m"}', '{"prompt":}',
            '{"prompt":[}', '{"prompt":"x}', '{"prompt":"x\\"}', '{"prompt":]}', '{"prompt":,}',
            json.dumps(PLAIN).encode("utf-16"), b"\x28\xb5\x2f\xfd\x00", b"\x00{}",
        ],
    )  # fmt: skip
    def test_no_json(self, gateway: Running, body: Any) -> None:
        before = len(gateway.seen)
        # What is left unsaid here the servers refuse themselves; what they would read is refused.
        if gateway.post("/api/generate", body)[0] == 200:
            with pytest.raises(json.JSONDecodeError):
                json.loads(gateway.seen[-1][1])
        else:
            assert len(gateway.seen) == before

    def test_compressed(self, gateway: Running) -> None:
        """A server would unpack it, and the log would not have its model."""
        for name in ("zstd", "gzip", "br", "ZSTD", "identity, zstd"):
            answer = gateway.post("/v1/completions", PLAIN, **{"Content-Encoding": name})
            assert (answer[0], error(answer)["type"]) == (415, "invalid_request_error")
        assert gateway.post("/v1/completions", PLAIN, **{"Content-Encoding": "identity"})[0] == 200

    def test_a_key_with_overrides_may(self, gateway: Running) -> None:
        """... say what is withheld, spelt as it is, and no more."""
        body = {**PLAIN, "keep_alive": 0, "shift": False, "options": {"num_ctx": 5}, "template": ""}
        for key in ("tuner", "ops"):
            assert gateway.post("/api/generate", body, key)[0] == 200
            assert gateway.post("/api/generate", {**PLAIN, "SHIFT": 1}, key)[0] == 400


def test_a_key_may_be_called_what_nginx_knows_otherwise() -> None:
    names = ("default", "include", "hostnames", "volatile")
    limited = [
        {"name": name, "overrides": "allow", "concurrent": 3, "rate": "9/s"} for name in names
    ]
    keys = [*limited, {"name": "plain", "overrides": "refuse"}]
    body = {**PLAIN, "keep_alive": 0}
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), gateway_keys=keys) as gateway,
    ):
        for name in names:
            assert gateway.post("/api/generate", body, name)[0] == 200
        assert gateway.post("/api/generate", body, "plain")[0] == 400


def _sent_beside(gateway: Running, path: str, body: bytes) -> tuple[list[Answer], list[float]]:
    """What is answered to `body`, and how many seconds others wait meanwhile."""
    answers: list[Answer] = []
    sender = threading.Thread(target=lambda: answers.append(gateway.post(path, body)))
    waited = []
    sender.start()
    while sender.is_alive():
        began = time.monotonic()
        assert gateway.call("GET", "/healthz", "")[0] == 200
        waited.append(time.monotonic() - began)
        time.sleep(0.005)
    return answers, waited


class TestHowMuch:
    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(lambda size: b"[" * size, id="lists"),
            pytest.param(lambda size: b'{"a":' * (size // 5), id="objects"),
            pytest.param(lambda size: b"[" + b"1," * (size // 2), id="numbers"),
            pytest.param(lambda size: b"1" * size, id="digits"),
            pytest.param(lambda size: b'"' + b'\\"' * (size // 2), id="quotes"),
            pytest.param(lambda size: b'"' + b"\\" * size, id="backslashes"),
            pytest.param(lambda size: b" " * size, id="spaces"),
            pytest.param(lambda size: b'"' + b"\\\\n" * (size // 3), id="pairs"),
            pytest.param(lambda size: b",:" * (size // 2), id="commas"),
        ],
    )
    def test_no_body_holds_up_the_others(self, gateway: Running, value: Any) -> None:
        """60 MB of the worst: refused, and meanwhile everybody else is answered at once."""
        body = b'{"model":"m","prompt":' + value(60_000_000)
        answers, waited = _sent_beside(gateway, "/api/generate", body)
        assert [answer[0] for answer in answers] == [400], answers
        assert max(waited) < 1, "seconds"

    def test_nor_does_one_that_is_edited(self, gateway: Running) -> None:
        """60 MB that are passed on with fields dropped from their begin, middle and end."""
        turns = [
            {"role": "user", "new": number, "content": "y" * 20_000_000} for number in range(3)
        ]
        body = json.dumps({"keep_alive": 0, "messages": turns, "model": "m", "shift": True})
        before = len(gateway.seen)
        sender, waited = _sent_beside(gateway, "/api/chat", body.encode())
        assert [answer[0] for answer in sender] == [200], sender
        assert max(waited) < 1, "seconds"
        [(_, sent)] = gateway.seen[before:]
        for turn in turns:
            del turn["new"]
        assert json.loads(sent) == {"messages": turns, "model": "m"}

    def test_uploads_do_not_gather_in_memory(self, gateway: Running) -> None:
        """Eight of 40 MB at once wait in files."""
        body = json.dumps({"model": "m", "prompt": "x" * 40_000_000}).encode()
        gateway.answer = (400, "application/json", b'{"error":"too long"}')
        senders = [
            threading.Thread(target=gateway.post, args=("/api/generate", body)) for _ in range(8)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        gateway.answer = (200, "application/json", b"{}")
        master = (gateway.directory / "nginx.pid").read_text().strip()
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        status = Path(f"/proc/{children[0]}/status").read_text()
        [peak] = re.findall(r"VmHWM:\s+(\d+) kB", status)
        assert int(peak) < 100_000, "kB in a worker at most"

    def test_too_large_is_refused_before_it_is_read(self, gateway: Running) -> None:
        raw = gateway.raw(
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {gateway.keys['plain']}\r\n"
            "Content-Length: 99999999\r\n\r\n".encode()
        )
        head, body = raw.split(b"\r\n\r\n")
        assert b" 413 " in head.splitlines()[0]
        assert json.loads(body)["error"]["message"] == "the request is larger than 64 MiB"


def _logged(gateway: Running, number: str) -> dict[str, Any]:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for entry in gateway.log():
            if entry["id"] == number:
                return entry
        time.sleep(0.1)
    raise AssertionError(f"{number} is not in the log")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Accel-Redirect", "/v1/models"),
        ("X-Accel-Redirect", "/hosts/gpu1/api/tags"),
        ("X-Accel-Charset", "koi8-r"),
    ],
)
def test_a_server_answers_and_tells_nginx_nothing_to_do(name: str, value: str) -> None:
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as gateway:
        gateway.headers, gateway.answer = {name: value}, (200, "text/plain", b"it answers")
        status, headers, body = gateway.post("/api/chat", CHAT)
        assert (status, headers["content-type"], body) == (200, "text/plain", b"it answers")
        until(lambda: set(gateway.in_flight().values()) == {0})


def test_what_is_of_no_model_is_asked_of_nobody_while_all_are_down() -> None:
    with tempfile.TemporaryDirectory() as directory, running(Path(directory)) as gateway:
        (gateway.directory / "backend.sock").unlink()
        until(lambda: gateway.errors().count("gets no requests until it answers") == 3)
        answer = gateway.call("GET", "/api/version", "plain")
        assert (answer[0], error(answer)) == (503, "no host can answer now")
        assert "lua entry thread aborted" not in gateway.errors()


class TestStrangers:
    """What callers without a key may cost."""

    @pytest.fixture
    def few(self) -> Iterator[Running]:
        with (
            tempfile.TemporaryDirectory() as directory,
            running(Path(directory), gateway_refusals=3) as gateway,
        ):
            yield gateway

    def test_many_refusals_are_neither_answered_nor_logged_as_the_first(self, few: Running) -> None:
        """Whatever is wrong with their keys; a valid one of the same address is served as ever."""
        keys = ["", "sk-" + "0" * 64, "nonsense", "", "", ""]
        assert [few.call("GET", "/v1/models", key)[0] for key in keys] == [401] * 3 + [429] * 3
        assert few.call("GET", "/v1/models", "plain")[0] == 200
        # A stranger may still ask whether the gateway is there.
        assert few.call("GET", "/healthz", "")[0] == 200
        few.ends()
        assert [entry["status"] for entry in few.log()] == [401, 401, 401, 429, 200]

    def test_a_line_of_the_log_is_short(self, few: Running) -> None:
        path = "/" + "p" * 5000
        assert few.call("GET", path, "")[0] == 401
        assert few.call("A" * 900, "/x", "")[0] == 401
        assert few.call("GET", f"/{'%0a' * 300}", "")[0] == 401
        few.ends()
        assert max(map(len, (few.directory / "gateway.log").read_text().splitlines())) < 850
        assert [len(entry["path"]) for entry in few.log()] == [203, 2, 203]

    def test_a_stranger_writes_nothing_to_the_error_log(self, few: Running) -> None:
        """A body above the limit would have its whole request line there."""
        headers = {"Content-Length": str(1 << 40)}
        status, _, _ = few.call("POST", "/v1/models?" + "q" * 5000, "", None, headers)
        assert status == 401
        few.ends()
        assert "qqq" not in (few.directory / "error.log").read_text()
