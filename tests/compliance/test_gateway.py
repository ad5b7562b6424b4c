"""The front door, as its users and as strangers see it."""

from __future__ import annotations

import json
import time

import openai
import pytest
import requests

from fleet import paths
from fleet.facts.files import FileStates
from fleet.facts.units import UnitState
from fleet.model_declarations import AUTO
from tasks.gateway import config_files, dropin_file
from tests.compliance.connection import Target

_QUESTION = "What is the capital of France?"
_PATIENCE = 900  # seconds; a cold load of a large model is part of a first answer


def test_active(gateway_host: Target) -> None:
    """nginx is active and starts at boot."""
    service = gateway_host.testinfra.service(paths.GATEWAY_UNIT)
    assert service.is_running, gateway_host.journal(paths.GATEWAY_UNIT)
    assert service.is_enabled


def test_configuration(gateway_host: Target) -> None:
    """The configuration is the declared one, and the running one."""
    files = [*config_files(gateway_host.declared, gateway_host.fleet), dropin_file()]
    states = gateway_host.fact(FileStates, paths=[file.path for file in files])
    # Names only: the content of one of them is secret.
    assert [file.path for file in files if states.get(file.path) != file.state] == []
    unit = gateway_host.fact(
        UnitState, unit=paths.GATEWAY_UNIT, files=[paths.GATEWAY_CONFIG, paths.GATEWAY_KEYS]
    )
    assert not unit.needs_daemon_reload
    assert unit.worker_started > unit.newest_file, "nginx has not been reloaded since"
    command = gateway_host.run("tr '\\0' ' ' < /proc/$(cat /run/nginx.pid)/cmdline")
    assert paths.GATEWAY_CONFIG in command


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags", "/api/pull", "/"])
def test_no_key(gateway_host: Target, path: str) -> None:
    """Without a key, every path is refused with 401."""
    answer = requests.get(_url(gateway_host, path), timeout=10)
    assert (answer.status_code, answer.headers.get("WWW-Authenticate", "")[:6]) == (401, "Bearer")
    assert answer.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize("change", ["wrong", "upper case", "cut short", "other scheme"])
def test_wrong_key(gateway_host: Target, change: str) -> None:
    """A key that is not exactly right is refused with 401."""
    key = _key(gateway_host)
    header = {
        "wrong": f"Bearer {key[:-1]}{'0' if key[-1] != '0' else '1'}",
        "upper case": f"Bearer {key.upper()}",
        "cut short": f"Bearer {key[:-1]}",
        "other scheme": f"Basic {key}",
    }[change]
    answer = requests.get(
        _url(gateway_host, "/v1/models"), headers={"Authorization": header}, timeout=10
    )
    assert answer.status_code == 401


def test_every_key(gateway_host: Target) -> None:
    """Every declared key is let in."""
    statuses = {
        name: requests.get(
            _url(gateway_host, "/v1/models"),
            headers={"Authorization": f"Bearer {key.get_secret_value()}"},
            timeout=30,
        ).status_code
        for name, key in gateway_host.fleet.gateway_keys(gateway_host.declared).items()
    }
    assert statuses == dict.fromkeys(gateway_host.declared.gateway.keys, 200)


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/api/pull"), ("DELETE", "/api/delete"), ("POST", "/api/create"), ("GET", "/api/ps")],
)
def test_inference_only(gateway_host: Target, method: str, path: str) -> None:
    """A key opens inference, and nothing that manages models."""
    # An empty body: should the path be open after all, Ollama answers 400 and changes nothing.
    answer = requests.request(
        method, _url(gateway_host, path), headers=_headers(gateway_host), data="", timeout=10
    )
    assert answer.status_code == 404


def test_streamed_chat(gateway_host: Target, measured) -> None:
    """A streamed chat is answered, token by token."""
    began = time.monotonic()
    arrivals, text = [], ""
    body = {"model": _model(gateway_host), "messages": [{"role": "user", "content": _QUESTION}]}
    with requests.post(
        _url(gateway_host, "/api/chat"),
        headers=_headers(gateway_host),
        json={**body, "options": {"num_predict": 32}},
        stream=True,
        timeout=_PATIENCE,
    ) as answer:
        assert answer.status_code == 200, answer.text
        for line in answer.iter_lines():
            part = json.loads(line)
            assert "error" not in part, part
            text += part["message"]["content"]
            if part["message"]["content"] or part["message"].get("thinking"):
                arrivals.append(time.monotonic() - began)
    measured(f"{text.strip()[:40]!r}, first token after {arrivals[0] * 1000:.0f} ms")
    assert part["done"]
    assert text.strip() or part["message"].get("thinking")


def test_openai_client(gateway_host: Target) -> None:
    """The OpenAI client gets an answer, streamed and whole."""
    client = openai.OpenAI(
        base_url=_url(gateway_host, "/v1"), api_key=_key(gateway_host), timeout=_PATIENCE
    )
    request = {
        "model": _model(gateway_host),
        "messages": [{"role": "user", "content": _QUESTION}],
        "max_tokens": 32,
    }
    whole = client.chat.completions.create(**request)
    assert whole.usage.completion_tokens > 0
    parts = list(client.chat.completions.create(**request, stream=True))
    # A stream whose runner died ends without it, and without any error.
    assert parts[-1].choices[0].finish_reason in ("stop", "length")


def test_keys_stay_secret(gateway_host: Target) -> None:
    """No key is in a log of the gateway, or readable by others than root."""
    keys = [
        key.get_secret_value()
        for key in gateway_host.fleet.gateway_keys(gateway_host.declared).values()
    ]
    # The patterns come on stdin, so they are in no process list either.
    found = gateway_host.run(
        "grep -rlF -f - /var/log/nginx; echo searched $?",
        stdin="".join(f"{key}\n" for key in keys),
    )
    # 1 is grep's word for no match; 2 would be for not having looked.
    assert found == "searched 1"
    assert gateway_host.testinfra.file(paths.GATEWAY_KEYS).mode == 0o600


def _url(target: Target, path: str) -> str:
    url = target.declared.gateway_url
    if url is None:
        pytest.skip("gateway_listen = 'loopback': not reachable from here, by declaration")
    return f"{url}{path}"


def _key(target: Target) -> str:
    keys = target.fleet.gateway_keys(target.declared)
    return next(iter(keys.values())).get_secret_value()


def _headers(target: Target) -> dict[str, str]:
    return {"Authorization": f"Bearer {_key(target)}"}


def _model(target: Target) -> str:
    """A model to chat with: one that is loaded, as any other could push it out of memory."""
    models = target.fleet.gpu_hosts[0].ollama.models
    name = next((model for model in models if model.load), models[0]).name
    if name != AUTO:
        return name
    answer = requests.get(_url(target, "/v1/models"), headers=_headers(target), timeout=30)
    return min(model["id"] for model in answer.json()["data"] if model["id"].startswith("gpt-oss:"))
