"""The gateway, as its users and as strangers see it."""

from __future__ import annotations

import json
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import requests

from fleet.firewall.facts import RulesetState
from fleet.gateway.declared import (
    context_of,
    gateway_keys,
    metrics_endpoints,
    previous_gateway_key,
    trust_of,
)
from fleet.gateway.facts import (
    DrainedHosts,
    Nameservers,
    OpensslVersion,
    ServedServers,
)
from fleet.gateway.files import (
    KERNEL,
    config_files,
    connection_files,
    dropin_file,
    loaded_files,
    metrics_files,
    rotation_files,
    sysctl_file,
    without_requests,
)
from fleet.gateway.offered import holders, instead_of, is_answered, meant, offered, plain_of
from fleet.gateway.paths import (
    CONNECTIONS_TABLE,
    CONNECTIONS_UNIT,
    GATEWAY_CONFIG,
    GATEWAY_CONNECTIONS,
    GATEWAY_DECLARED,
    GATEWAY_UNIT,
    ROTATION_TIMER,
    ROTATION_UNIT,
)
from fleet.gateway.settings import Gateway
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.jobs import LoggedJob
from fleet.kit.facts.units import UnitState
from fleet.ollama.settings import Ollama
from fleet.platform.facts import HasIpv6

from .connection import Target
from .doors import handshake_with_tls_1_1
from .gateway_calls import call as _call
from .gateway_calls import chat_with_backends, look_at_backends
from .gateway_calls import headers as _headers
from .gateway_calls import key as _key
from .gateway_calls import name as _name
from .gateway_calls import native as _native
from .gateway_calls import presented as _presented
from .gateway_calls import url as _url
from .gateway_calls import usable as _usable
from .outcomes import Record, Say

_QUESTION = "What is the capital of France?"
_PATIENCE = 900  # seconds; a cold load of a large model is part of a first answer
_SOON = timedelta(days=30)  # before an end, which somebody should know of
_CHATS = 8  # for the times to the first token
_RENEWAL = {
    "private-ca": "the next deploy renews it",
    "given": "give the gateway a new one",
    "acme": "certbot should have renewed it: look into its journal",
}


def test_active(gateway_host: Target) -> None:
    """nginx is active and starts at boot."""
    service = gateway_host.testinfra.service(GATEWAY_UNIT)
    assert service.is_running, gateway_host.journal(GATEWAY_UNIT)
    assert service.is_enabled


def test_configuration(gateway_host: Target, warns: Say) -> None:
    """The configuration is the declared one, and the running one."""
    declared = gateway_host.declared
    fleet = gateway_host.fleet
    drained, served = gateway_host.fact(DrainedHosts), gateway_host.fact(ServedServers) or ()
    idle = without_requests(fleet, drained, served)
    openssl = gateway_host.fact(OpensslVersion)
    ipv6 = gateway_host.fact(HasIpv6)
    by_name = any(not item.is_number for item in declared[Gateway].backends)
    resolvers = gateway_host.fact(Nameservers) if by_name else ()
    files = [
        *config_files(declared, fleet, openssl, idle, ipv6, resolvers),
        dropin_file(declared, ipv6),
        sysctl_file(),
    ]
    states = gateway_host.fact(FileStates, paths=[file.path for file in files])
    # Names only: the content of one of them is secret.
    assert [file.path for file in files if states.get(file.path) != file.state] == []
    loaded = loaded_files(declared)
    unit = gateway_host.fact(UnitState, unit=GATEWAY_UNIT, files=loaded, reloaded=True)
    assert not unit.needs_daemon_reload
    assert not unit.is_outdated, "nginx has not been reloaded since"
    command = gateway_host.run("tr '\\0' ' ' < /proc/$(cat /run/nginx.pid)/cmdline")
    assert GATEWAY_CONFIG in command
    kernel = {name: int(gateway_host.run("sysctl -n %s", name)) for name in KERNEL}
    assert kernel == KERNEL
    if drained:
        warns(f"drained, gets no requests: {', '.join(drained)}")
    ours = [item.name for item in fleet.servers() if item.ours]
    if waiting := [name for name in ours if name not in served]:
        warns(f"not ready yet, gets no requests: {', '.join(waiting)}")


def test_connections(gateway_host: Target) -> None:
    """An address has no more connections than declared, and logs are rotated by size."""
    files = rotation_files()
    timer = gateway_host.testinfra.service(ROTATION_TIMER)
    assert timer.is_running
    assert timer.is_enabled
    assert not gateway_host.fact(LoggedJob, unit=ROTATION_UNIT).has_failed
    if gateway_host.declared[Gateway].connections is not None:
        files += connection_files(gateway_host.declared, gateway_host.fleet)
        rules = gateway_host.fact(RulesetState, table=CONNECTIONS_TABLE, path=GATEWAY_CONNECTIONS)
        assert rules.live, gateway_host.journal(CONNECTIONS_UNIT)
        assert rules.live == rules.declared
        assert gateway_host.testinfra.service(CONNECTIONS_UNIT).is_enabled
    states = gateway_host.fact(FileStates, paths=[file.path for file in files])
    assert [file.path for file in files if states.get(file.path) != file.state] == []


@pytest.mark.parametrize("path", ["/v1/models", "/api/tags", "/api/pull", "/"])
def test_no_key(gateway_host: Target, path: str) -> None:
    """Without a key, every path is refused with 401."""
    answer = _call(gateway_host, "GET", path)
    assert (answer.status_code, answer.headers.get("WWW-Authenticate", "")[:6]) == (401, "Bearer")
    said = answer.json()["error"]
    # Ollama's errors are a text, and OpenAI's have a code.
    assert "a valid API key is needed" in (said if path.startswith("/api/") else said["message"])


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
    answer = _call(gateway_host, "GET", "/v1/models", headers={"Authorization": header})
    assert answer.status_code == 401


@pytest.mark.parametrize("header", ["Authorization", "x-api-key"])
def test_every_key(gateway_host: Target, header: str, warns: Say) -> None:
    """Every declared key is let in, until its end and from its networks only."""
    now = datetime.now(UTC)
    expected, seen = {}, {}
    for key in gateway_host.declared[Gateway].keys:
        if key.expires and not key.has_ended(now) and key.expires - now < _SOON:
            warns(f"key {key.name} ends on {key.expires:%Y-%m-%d %H:%M} UTC")
        # 429 is an answer to a key that is let in. Which address the gateway sees this machine
        # with is not known here, so a key that is bound to networks may be refused for it.
        let_in = {200, 429} | ({403} if key.allow_from else set())
        expected[key.name] = {401} if key.has_ended(now) else let_in
        value = gateway_keys(gateway_host.fleet, gateway_host.declared)[key.name]
        headers = {header: _presented(header, value.get_secret_value())}
        seen[key.name] = _call(gateway_host, "GET", "/v1/models", headers=headers).status_code
    assert {name: seen[name] for name in seen if seen[name] not in expected[name]} == {}


def test_values_before_rotation(gateway_host: Target) -> None:
    """The value that a key had before its rotation is let in until its date, and not after."""
    wrong = []
    for key in gateway_host.declared[Gateway].keys:
        before = previous_gateway_key(gateway_host.fleet, key.name)
        if before is None:
            continue
        ended = key.has_ended(datetime.now(UTC)) or before.until <= datetime.now(UTC)
        headers = {"x-api-key": before.value.get_secret_value()}
        status = _call(gateway_host, "GET", "/v1/models", headers=headers).status_code
        if (status == 401) != ended:
            wrong.append(f"{key.name}: {status}, the overlap is until {before.until}")
    assert wrong == []


_MANAGEMENT = [
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("POST", "/api/me"),
    ("POST", "/api/blobs/sha256:0"),
    ("DELETE", "/api/delete"),
    ("GET", "/metrics"),
    ("GET", "/stub_status"),
]


@pytest.mark.parametrize(("method", "path"), _MANAGEMENT)
def test_inference_only(gateway_host: Target, method: str, path: str) -> None:
    """A key opens inference, and nothing that manages models."""
    # An empty body: should the path be open after all, Ollama answers 400 and changes nothing.
    answer = _call(gateway_host, method, path, headers=_headers(gateway_host), data="")
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "pull"), ("POST", "create"), ("POST", "show"), ("DELETE", "delete"), ("GET", "ps")],
)
def test_management_needs_the_role(gateway_host: Target, method: str, path: str) -> None:
    """What manages a host's models is for admin keys: others get 403."""
    name = next(
        (key.name for key in _usable(gateway_host) if key.role == "inference"),
        None,
    )
    if name is None:
        pytest.skip("every usable key is an admin key, by declaration")
    value = gateway_keys(gateway_host.fleet, gateway_host.declared)[name].get_secret_value()
    for gpu in gateway_host.fleet.running(Ollama):
        answer = _call(
            gateway_host, method, f"/hosts/{gpu.name}/api/{path}",
            headers={"x-api-key": value}, data="",
        )  # fmt: skip
        assert answer.status_code == 403, gpu.name


def test_no_client_unloads_models(gateway_host: Target) -> None:
    """No key but one with `overrides: allow` can have models unloaded, or loaded in another way."""
    # Of each way the first, which is limited the least.
    usable = reversed(_usable(gateway_host))
    keys = {key.way: key.name for key in usable if key.way != "allow"}
    if not keys:
        pytest.skip("every usable key may override, by declaration")
    values = gateway_keys(gateway_host.fleet, gateway_host.declared)
    # No host has this model: should it pass, Ollama answers 404 and unloads nothing.
    told: dict[str, dict[str, object]] = {
        "keep_alive": {"keep_alive": 0},
        "options.num_ctx": {"options": {"num_ctx": 512}},
        "shift": {"shift": False},
    }
    for field, extra in told.items():
        for way, name in keys.items():
            answer = _call(
                gateway_host, "POST", "/api/generate",
                headers={"x-api-key": values[name].get_secret_value()},
                json={"model": "llm-fleet-no-such-model", **extra},
            )  # fmt: skip
            if way == "refuse":
                assert answer.status_code == 400, extra
                # Ollama's own refusals have no such code.
                assert "is not for this key" in answer.json()["error"], extra
            else:
                assert answer.headers.get("X-Ignored-Fields") == field, extra


def test_tls(gateway_host: Target, measured: Say, warns: Say) -> None:
    """TLS 1.2 and 1.3 only, with a trusted certificate, and HSTS."""
    declared = gateway_host.declared
    if declared[Gateway].tls == "off":
        pytest.skip("gateway_tls = 'off': plain HTTP, by declaration")
    url = urlsplit(_url(gateway_host, "/healthz"))
    address = (url.hostname or "", url.port or 443)
    trust = trust_of(gateway_host.fleet, declared)
    context = ssl.create_default_context(cafile=trust if isinstance(trust, str) else None)
    with (
        socket.create_connection(address, 10) as plain,
        context.wrap_socket(plain, server_hostname=url.hostname) as secured,
    ):
        certificate, version = secured.getpeercert(), secured.version()
    assert certificate is not None
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
    left = ends - datetime.now(UTC)
    measured(f"{version}, {left.days} days left")
    if left < _SOON:
        warns(f"the certificate ends on {ends:%Y-%m-%d}; {_RENEWAL[declared[Gateway].tls]}")
    assert _call(gateway_host, "GET", "/healthz").headers["Strict-Transport-Security"]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake_with_tls_1_1(address)


def test_plain_http_is_redirected(gateway_host: Target) -> None:
    """Plain HTTP is answered by a redirect to HTTPS, and nothing else."""
    declared = gateway_host.declared
    if declared[Gateway].tls == "off":
        pytest.skip("gateway_tls = 'off': plain HTTP, by declaration")
    url = urlsplit(_url(gateway_host, "/v1/models"))
    ports = {url.port, declared[Gateway].http_port} - {None}
    for port in ports:
        plain = urlunsplit(("http", url.netloc.rsplit(":", 1)[0] + f":{port}", url.path, "", ""))
        answer = requests.get(plain, allow_redirects=False, timeout=10)
        assert answer.status_code == 308, plain
        assert answer.headers["Location"].startswith("https://")


def test_metrics(gateway_host: Target) -> None:
    """The exporters run as declared, answer on their declared address, and count requests."""
    endpoints = metrics_endpoints(gateway_host.declared)
    if not endpoints:
        pytest.skip("gateway_metrics = 'off'")
    files = metrics_files(gateway_host.declared)
    states = gateway_host.fact(FileStates, paths=[file.path for file in files])
    assert [file.path for file in files if states.get(file.path) != file.state] == []
    _call(gateway_host, "GET", "/v1/models", headers=_headers(gateway_host))
    time.sleep(2)  # the log is written once a second
    expected = {
        "requests": f'llm_gateway_requests_total{{key="{_name(gateway_host)}",path="/v1/models"',
        "nginx": "nginx_up 1",
        "node": "node_load1 ",
    }
    for name, endpoint in endpoints.items():
        text = gateway_host.run(
            "curl -fsS --noproxy '*' --max-time 10 %s", f"http://{endpoint}/metrics"
        )
        assert expected[name] in text, f"{name} at {endpoint}"


def test_every_model(gateway_host: Target, measured: Say, warns: Say) -> None:
    """Every declared model is found through the gateway by all its names, and no other."""
    fleet, declared = gateway_host.fleet, gateway_host.declared[Gateway]
    served = gateway_host.fact(ServedServers, fresh=True) or ()
    idle = without_requests(fleet, gateway_host.fact(DrainedHosts, fresh=True), served)
    busy = holders(item for item in fleet.servers() if item.name not in idle)
    headers, seen = _headers(gateway_host), dict[str, int]()
    key = _usable(gateway_host)[0]
    names, instead = offered(fleet, declared, key), instead_of(declared, key)
    native = _native(fleet)
    for name in (*names, "llm-fleet-no-such-model"):
        if meant(declared, name) in native or name not in names:
            answer = _call(gateway_host, "POST", "/api/show", headers=headers, json={"model": name})
        else:
            answer = _call(gateway_host, "GET", f"/v1/models/{name}", headers=headers)
        seen[name] = answer.status_code
    measured(f"{len(names)} names")
    missing = [name for name in names if not is_answered(meant(declared, name), busy, instead)]
    if missing:
        warns(f"no host that gets requests has {', '.join(missing)}")
    wanted = {name: 503 if name in missing else 200 if name in names else 404 for name in seen}
    # 429: the key has no more requests for now, by declaration.
    assert {name: seen[name] for name in seen if seen[name] not in (wanted[name], 429)} == {}


def test_backends(gateway_host: Target, measured: Say, warns: Say) -> None:
    """Each server that is not ours answers looks, and a chat through the gateway."""
    if not gateway_host.declared[Gateway].backends:
        pytest.skip("gateway_backends = (): none is declared")
    look_at_backends(gateway_host)
    chat_with_backends(gateway_host, measured, warns)


def test_streamed_chat(gateway_host: Target, measured: Say, record: Record) -> None:
    """A streamed chat is answered, to its end."""
    if not _native(gateway_host.fleet):
        pytest.skip("no declared model is served by Ollama")
    began = time.monotonic()
    arrivals, text = [], ""
    body: dict[str, Any] = {
        "model": _model(gateway_host),
        "messages": [{"role": "user", "content": _QUESTION}],
    }
    with requests.post(
        _url(gateway_host, "/api/chat"),
        headers=_headers(gateway_host),
        # Models that think do so first, and it counts.
        json={**body, "options": {"num_predict": 512, "temperature": 0}},
        stream=True,
        timeout=_PATIENCE,
        verify=trust_of(gateway_host.fleet, gateway_host.declared),
    ) as answer:
        assert answer.status_code == 200, answer.text
        for line in answer.iter_lines():
            part = json.loads(line)
            assert "error" not in part, part
            piece = part["message"]["content"] or part["message"].get("thinking")
            if piece:
                arrivals.append(time.monotonic() - began)
            text += part["message"]["content"]
    assert arrivals, f"nothing was answered: {part}"
    measured(f"{text.strip()[:40]!r}, first token after {arrivals[0] * 1000:.0f} ms")
    times = [arrivals[0]]
    while len(times) < _CHATS and (time_to_first := _first_token(gateway_host, body)):
        times.append(time_to_first)
    record("first_tokens", body["model"], [round(1000 * time) for time in times])
    assert part["done"]
    assert text.strip()


def _first_token(target: Target, body: dict[str, Any]) -> float | None:
    """Seconds until the first token of an answer, which is cut there.

    None when the key has no more requests for now, by declaration.
    """
    began = time.monotonic()
    with requests.post(
        _url(target, "/api/chat"),
        headers=_headers(target),
        json={**body, "options": {"num_predict": 1, "temperature": 0}},
        stream=True,
        timeout=_PATIENCE,
        verify=trust_of(target.fleet, target.declared),
    ) as answer:
        if answer.status_code == 429:
            return None
        assert answer.status_code == 200, answer.text
        assert "error" not in json.loads(next(answer.iter_lines()))
        return time.monotonic() - began


def test_openai_client(gateway_host: Target) -> None:
    """The OpenAI client gets an answer, streamed and whole."""
    import openai  # noqa: PLC0415 - heavy, and most processes look into no gateway

    trust = context_of(gateway_host.fleet, gateway_host.declared)
    client = openai.OpenAI(
        base_url=_url(gateway_host, "/v1"),
        api_key=_key(gateway_host),
        timeout=_PATIENCE,
        http_client=openai.DefaultHttpxClient(verify=trust),
    )
    request: dict[str, Any] = {
        "model": _model(gateway_host),
        "messages": [{"role": "user", "content": _QUESTION}],
        "max_tokens": 512,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**request)
    assert whole.choices[0].message.content.strip()
    parts = list(client.chat.completions.create(**request, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts).strip()
    # A stream whose runner died ends without it, and without any error.
    assert parts[-1].choices[0].finish_reason in ("stop", "length")


def test_keys_stay_secret(gateway_host: Target) -> None:
    """No key is in a log of the gateway, or readable by others than root."""
    keys = [
        key.get_secret_value()
        for key in gateway_keys(gateway_host.fleet, gateway_host.declared).values()
    ]
    # The patterns come on stdin, so they are in no process list either.
    found = gateway_host.run(
        "grep -rlF -f - /var/log/nginx /var/log/llm-fleet; echo searched $?",
        stdin="".join(f"{key}\n" for key in keys),
    )
    # 1 is grep's word for no match; 2 would be for not having looked.
    assert found == "searched 1"
    assert gateway_host.testinfra.file(GATEWAY_DECLARED).mode == 0o600


def _model(target: Target) -> str:
    """A model to chat with: one that is loaded, as any other could push it out of memory."""
    _name(target)
    declared, key = target.declared[Gateway], _usable(target)[0]
    kept = {
        plain_of(model.name)
        for host in target.fleet.running(Ollama)
        for model in host[Ollama].models
        if model.load
    }
    names, down = offered(target.fleet, declared, key), list[str]()
    native = _native(target.fleet)
    if not native:
        return names[0]
    for name in sorted(names, key=lambda name: meant(declared, name) not in kept):
        if meant(declared, name) not in native:
            continue
        # Without messages it is only loaded, and one that makes embeddings is not even that.
        answer = requests.post(
            _url(target, "/api/chat"),
            headers=_headers(target),
            json={"model": name, "messages": []},
            timeout=_PATIENCE,
            verify=trust_of(target.fleet, target.declared),
        )
        if answer.status_code == 503:  # no host that has it gets requests
            down.append(name)
        elif "does not support chat" not in answer.text:
            return name
    if down:
        return down[0]
    pytest.skip("no declared model can chat")
