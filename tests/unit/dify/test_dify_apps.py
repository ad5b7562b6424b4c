"""Chats with the sample apps while a part of Dify is not up yet."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from dify_apps import Apps
from dify_console import Answer, Connection, Dify, DifyError

NO_NODE = "[Ollama] Error: req_id: x PluginDaemonInternalServerError: no available node, plugin "
NO_NODE += "runtime not found"


NO_DAEMON = "Failed to request plugin daemon, url: plugin/t/dispatch/llm/invoke"
# Of a daemon that does not listen, as long as Redis has the list of providers.
NOT_LISTENING = "Request to Plugin Daemon Service failed-500"


class Talk:
    """A Dify whose plugin comes up late: what it answers, in order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **answers: Any) -> None:
        self.asked: list[str] = []
        self.answers = answers
        config = {"url": "http://127.0.0.1:9", "memory": str(folder / "m"), "stream_timeout": 9,
                  "keys": str(folder / "k"), "retry_timeout": 60}  # fmt: skip
        client = Dify(config)
        client.keys.keep("chat", "app-x")
        self.apps = Apps(client)
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(Connection, "request", self.whole)
        monkeypatch.setattr(Connection, "events", self.streamed)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def whole(self, *_: Any) -> Any:
        self.asked.append("whole")
        status, body = self._next("whole", (200, {"answer": "Paris"}))
        return Answer(status, json.dumps(body).encode(), [])

    def streamed(self, *_: Any) -> Any:
        self.asked.append("streamed")
        said = [{"event": "message", "answer": "Paris"}, {"event": "message_end"}]
        return iter(self._next("streamed", said))

    def _next(self, kind: str, last: Any) -> Any:
        left = self.answers.get(kind, [])
        return (left.pop(0) if len(left) > 1 else left[0]) if left else last

    def __call__(self) -> Any:
        return self.apps.chat({"role": "chat", "name": "Fleet chat"})


@pytest.mark.parametrize(
    "answer",
    [
        (400, {"message": NO_NODE}),
        (400, {"message": NO_DAEMON}),
        (400, {"message": NOT_LISTENING}),
        (400, {"message": f"Run failed: {NOT_LISTENING}"}),
        (502, {}),
        (503, {}),
        (504, {}),
    ],
)
def test_chat_waits_for_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    """A good upgrade would be taken back otherwise."""
    good = (200, {"answer": "Paris"})
    talk = Talk(tmp_path, monkeypatch, whole=[answer, answer, good])
    assert talk() == ("Paris", "Paris")
    assert talk.asked == ["whole"] * 3 + ["streamed"]
    with pytest.raises(DifyError):
        Talk(tmp_path, monkeypatch, whole=[answer])()


@pytest.mark.parametrize(
    "error",
    [
        *({"event": "error", "message": words} for words in (NO_NODE, NO_DAEMON, NOT_LISTENING)),
        {"event": "workflow_finished", "data": {"status": "failed", "error": NOT_LISTENING}},
    ],
)
def test_streamed_chat_waits_for_the_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    """Its error is inside of a 200; after a part of an answer it is another one's."""
    part = {"event": "message", "answer": "Pa"}
    good = [{"event": "message", "answer": "Paris"}, {"event": "message_end"}]
    talk = Talk(tmp_path, monkeypatch, streamed=[[error], [error], good])
    assert talk() == ("Paris", "Paris")
    assert talk.asked == ["whole"] + ["streamed"] * 3
    talk = Talk(tmp_path, monkeypatch, streamed=[[part, error], good])
    with pytest.raises(DifyError, match="streamed"):
        talk()


def test_workflow_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends without an event for errors; one that went well has the same last event."""
    failed = {"event": "workflow_finished", "data": {"status": "failed", "error": "no model"}}
    with pytest.raises(DifyError, match="streamed: no model"):
        Talk(tmp_path, monkeypatch, streamed=[[{"event": "node_finished"}, failed]])()
    ended = {"event": "workflow_finished", "data": {"status": "succeeded", "error": None}}
    good = [{"event": "message", "answer": "Paris"}, {"event": "message_end"}, ended]
    assert Talk(tmp_path, monkeypatch, streamed=[good])() == ("Paris", "Paris")


def test_chat_that_is_refused_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Talk(tmp_path, monkeypatch, whole=[(400, {"message": "Server Unavailable Error"})])
    with pytest.raises(DifyError, match="Server Unavailable"):
        talk()
    assert talk.asked == ["whole"]
