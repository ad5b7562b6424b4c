"""The sample apps: imported and kept as declared, with an API key each, and asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

from dify_console import (
    LONGEST_ANSWER,
    Connection,
    Dify,
    DifyError,
    StartingError,
    fingerprint,
    is_starting,
    kind_of,
)

_QUESTION = "What is the capital of France?"


class Apps:
    """The sample apps of one Dify. Every `*problem` looks; every `do_*` changes."""

    def __init__(self, dify: Dify) -> None:
        self.dify, self.config, self.memory = dify, dify.config, dify.memory

    def find_app(self, app: dict[str, Any]) -> str | None:
        """The id of the sample app: the remembered one while it is there, else by name and kind."""
        query = urlencode({"page": 1, "limit": 100, "name": app["name"]})
        found = [
            item["id"]
            for item in self.dify.call("GET", f"/console/api/apps?{query}").value["data"]
            if item["name"] == app["name"] and item["mode"] == app["mode"]
        ]
        known = (self.memory.get("apps") or {}).get(app["role"], {}).get("id")
        return known if known in found else next(iter(found), None)

    def app_content(self, app: dict[str, Any], identifier: str) -> Any:
        """What of an app the DSL decides, as Dify has it; None while it is not published."""
        if app["mode"] == "chat":
            return self.dify.call("GET", f"/console/api/apps/{identifier}").value["model_config"]
        published = self.dify.call("GET", f"/console/api/apps/{identifier}/workflows/publish").value
        return published and {key: published.get(key) for key in ("graph", "features")}

    def problem(self, app: dict[str, Any]) -> str | None:
        """Why the app is not the declared one: changed here, changed there, or not there."""
        identifier = self.find_app(app)
        if identifier is None:
            return f"app {app['name']!r}: not there"
        known = (self.memory.get("apps") or {}).get(app["role"], {})
        if known.get("id") != identifier or known.get("dsl") != fingerprint(app["dsl"]):
            return f"app {app['name']!r}: not the declared one"
        if known["content"] != fingerprint(self.app_content(app, identifier)):
            return f"app {app['name']!r}: changed since, or not published"
        detail = self.dify.call("GET", f"/console/api/apps/{identifier}").value
        if not detail["enable_api"]:
            return f"app {app['name']!r}: its API is off"
        if detail["enable_site"]:
            return f"app {app['name']!r}: its page needs no login"
        return None

    def do_app(self, app: dict[str, Any]) -> None:
        """Import the app once, then change it; publish it, open its API and close its page."""
        identifier = self.find_app(app)
        if identifier and app["mode"] == "chat":
            # Importing over a chat app is refused, and without app_id makes another one.
            self.dify.call(
                "POST", f"/console/api/apps/{identifier}/model-config", app["model_config"]
            )
        else:
            identifier = self._import(app, identifier)
        if app["mode"] != "chat":
            mark = {"marked_name": "llm-fleet", "marked_comment": ""}
            self.dify.call("POST", f"/console/api/apps/{identifier}/workflows/publish", mark)
        self.dify.call("POST", f"/console/api/apps/{identifier}/api-enable", {"enable_api": True})
        self.dify.call(
            "POST", f"/console/api/apps/{identifier}/site-enable", {"enable_site": False}
        )
        known = dict(self.memory.get("apps") or {})
        known[app["role"]] = {
            "id": identifier,
            "dsl": fingerprint(app["dsl"]),
            "content": fingerprint(self.app_content(app, identifier)),
        }
        self.memory.keep("apps", known)

    def _import(self, app: dict[str, Any], identifier: str | None) -> Any:
        body = {"mode": "yaml-content", "yaml_content": app["dsl"]}
        body |= {"app_id": identifier} if identifier else {}
        answer = self.dify.call("POST", "/console/api/apps/imports", body, ok=(200, 202, 400))
        if answer.status == 202:
            # The DSL is of a newer version than this Dify; it says so, and takes it.
            path = f"/console/api/apps/imports/{answer.value['id']}/confirm"
            answer = self.dify.call("POST", path, {}, ok=(200, 400))
        if answer.status == 400:
            raise DifyError(f"app {app['name']!r}: {answer.message}")
        return answer.value["app_id"]

    def key_problem(self, app: dict[str, Any]) -> str | None:
        """Why the app's kept API key is none of its keys."""
        identifier = self.find_app(app)
        tokens = [item["token"] for item in self._tokens(identifier)] if identifier else []
        if self.dify.keys.get(app["role"]) in tokens:
            return None
        return f"app {app['name']!r}: no API key is kept"

    def do_key(self, app: dict[str, Any]) -> None:
        """Keep one of the app's API keys; a new one is made when it has none."""
        identifier = self.find_app(app)
        tokens = [item["token"] for item in self._tokens(identifier)]
        if not tokens:
            made = self.dify.call("POST", f"/console/api/apps/{identifier}/api-keys")
            tokens = [made.value["token"]]
        self.dify.keys.keep(app["role"], tokens[0])

    def _tokens(self, identifier: str | None) -> Any:
        return self.dify.call("GET", f"/console/api/apps/{identifier}/api-keys").value["data"]

    def chat(self, app: dict[str, Any]) -> tuple[str, str]:
        """Ask the app, whole and streamed; the two answers.

        Only a streamed workflow proves the worker, and an error comes inside of a 200. The plugin's
        process may come up a minute after the API: until then each is asked again.
        """
        token = self.dify.keys.get(app["role"])
        if token is None:
            raise DifyError(f"app {app['name']!r}: no API key is kept; deploy first")
        headers = {"Authorization": f"Bearer {token}"}
        http_ = Connection(self.config["url"])
        path, patience = "/v1/chat-messages", self.config["stream_timeout"]

        def whole() -> Any:
            answer = http_.request("POST", path, _question("blocking"), headers, LONGEST_ANSWER)
            if answer.status != 200:
                raise kind_of(answer)(f"app {app['name']!r}: {answer.status}: {answer.message}")
            return answer.value["answer"]

        def streamed() -> str:
            return _streamed(app, http_.events(path, _question("streaming"), headers, patience))

        limit = self.config["retry_timeout"]
        return _once_up(whole, limit), _once_up(streamed, limit)


def _once_up(ask: Callable[[], Any], limit: float) -> Any:
    deadline = time.monotonic() + limit
    while True:
        try:
            return ask()
        except StartingError:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)


def _question(mode: str) -> dict[str, Any]:
    # Dify would ask the model a second time, for a title.
    return {
        "inputs": {}, "query": _QUESTION, "user": "llm-fleet", "response_mode": mode,
        "auto_generate_name": False,
    }  # fmt: skip


def _failure(event: dict[str, Any]) -> str | None:
    """What an event says went wrong; a workflow that fails ends without an event for errors."""
    if event.get("event") == "error":
        return str(event.get("message"))
    data = event.get("data") or {}
    if event.get("event") == "workflow_finished" and data.get("status") in ("failed", "stopped"):
        return str(data.get("error") or data["status"])
    return None


def _streamed(app: dict[str, Any], events: Iterator[dict[str, Any]]) -> str:
    parts: list[str] = []
    ended = False
    for event in events:
        kind = event.get("event")
        if message := _failure(event):
            starts = not any(parts) and is_starting(message)
            error = StartingError if starts else DifyError
            raise error(f"app {app['name']!r}, streamed: {message}")
        if kind in ("message", "agent_message"):
            parts.append(event.get("answer", ""))
        ended = ended or kind == "message_end"
    if not ended:
        raise DifyError(f"app {app['name']!r}, streamed: the answer has no end")
    return "".join(parts)
