"""A browser's and a program's way of asking Dify, or its stand-in."""

from __future__ import annotations

import base64
import json
from typing import Any

import requests

from tests.lab.upstream.rig import MODEL

OWNER = {"email": "Owner@fleet.internal", "name": "Owner", "password": "Passw0rd-123"}
PROVIDER = "langgenius/ollama/ollama"
MODELS = f"workspaces/current/model-providers/{PROVIDER}/models"
CREDENTIALS = f"{MODELS}/credentials"
PLUGIN = "workspaces/current/plugin"
GRAPH = {
    "graph": {
        "nodes": [
            {"id": "start", "data": {"type": "start", "variables": []}},
            {
                "id": "llm",
                "data": {
                    "type": "llm",
                    "model": {"provider": PROVIDER, "name": MODEL, "mode": "chat",
                              "completion_params": {"temperature": 0, "num_predict": 20}},
                    "prompt_template": [{"role": "user", "text": "{{#sys.query#}}"}],
                },
            },
            {"id": "answer", "data": {"type": "answer", "answer": "{{#llm.text#}}"}},
        ],
        "edges": [{"source": "start", "target": "llm"}, {"source": "llm", "target": "answer"}],
    }
}  # fmt: skip
CHAT_CONFIG: dict[str, Any] = {
    "model": {"provider": PROVIDER, "name": MODEL, "mode": "chat",
              "completion_params": {"temperature": 0, "num_predict": 20}},
    "pre_prompt": "",
}  # fmt: skip


class Console:
    """One browser."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        headers = {"X-CSRF-Token": self.session.cookies.get("csrf_token", "")}
        url = f"{self.url}/console/api/{path}"
        return self.session.request(
            method, url, json=body, headers=headers | more.pop("headers", {}), timeout=60, **more
        )

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def login(self, password: str = OWNER["password"], email: str = OWNER["email"]) -> Any:
        text = base64.b64encode(password.encode()).decode()
        return self.ask("POST", "login", {"email": email, "password": text, "remember_me": True})


def service(url: str, key: str, path: str, body: Any = None, **more: Any) -> requests.Response:
    return requests.request(
        "POST" if body is not None else "GET", f"{url}/v1/{path}", json=body,
        headers={"Authorization": f"Bearer {key}"}, timeout=60, **more,
    )  # fmt: skip


def question(**more: Any) -> dict[str, Any]:
    return {
        "inputs": {}, "query": "What is the capital of France?", "user": "smoke",
        "response_mode": "blocking", "auto_generate_name": False, **more,
    }  # fmt: skip


def events(answer: requests.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    return [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith(b"data:")]


def credentials(url: str, **more: str) -> dict[str, Any]:
    values = {"base_url": url, "mode": "chat", "context_size": "8192", "max_tokens": "4096"}
    return {"model": MODEL, "model_type": "llm", "credentials": values | more}


def refused(answer: requests.Response, status: int, words: str) -> None:
    assert answer.status_code == status, answer.text
    assert words in answer.text


def dsl(version: str, mode: str, **parts: Any) -> dict[str, Any]:
    app = {"name": "sample", "mode": mode, "description": "", "icon": "x"}
    text = json.dumps({"version": version, "kind": "app", "app": app, **parts})
    return {"mode": "yaml-content", "yaml_content": text}
