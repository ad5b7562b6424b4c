"""Who calls the gateway, and how much of what a key may have is left."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from fleet.kit.lua import literal
from tests.unit.gateway.evaluated import Evaluated, evaluating
from tests.unit.gateway.running import CHAT, Running, running

VALUE = "sk-" + "0a" * 32


@pytest.fixture(scope="module")
def lua() -> Iterator[Evaluated]:
    with tempfile.TemporaryDirectory() as directory, evaluating(Path(directory)) as evaluated:
        yield evaluated


def caller_of(lua: Evaluated, authorization: str | None, key: str | None, **ends: int) -> str:
    """The name of who calls with these headers; "nil" for nobody."""
    digest = sha256(VALUE.encode()).hexdigest()
    declared = {
        "keys": {digest: {"name": "team-a", **ends}},
        "callers": {"team-a": {"concurrent": 1, "overrides": "ignore", "admin": False}},
    }
    said = ", ".join("nil" if item is None else literal(item) for item in (authorization, key))
    return lua(
        'local callers = require "gateway_callers"\n'
        f"callers.init({literal(declared)})\n"
        f"local found = callers.find({said})\n"
        "return found and found.name"
    )


@pytest.mark.parametrize(
    ("authorization", "key", "found"),
    [
        (f"Bearer {VALUE}", None, True),
        (f"bearer {VALUE}", None, True),
        (None, VALUE, True),
        ("", VALUE, True),
        (f"Bearer {VALUE}", "sk-other", True),
        ("Bearer sk-other", VALUE, False),
        (f"Basic {VALUE}", VALUE, False),
        (f"Bearer  {VALUE}", None, False),
        (f"Bearer {VALUE} ", None, False),
        (VALUE, None, False),
        (None, VALUE.upper(), False),
        (None, VALUE[:-1], False),
        (None, VALUE + "0", False),
        (None, "x" * len(VALUE), False),
        (None, sha256(VALUE.encode()).hexdigest(), False),
        (None, None, False),
    ],
)
def test_who_calls(lua: Evaluated, authorization: str | None, key: str | None, found: bool) -> None:
    """Whoever shows the very key, and an Authorization header is decisive where there is one."""
    assert caller_of(lua, authorization, key) == ("team-a" if found else "nil")


def test_a_key_ends(lua: Evaluated) -> None:
    now = int(time.time())
    assert caller_of(lua, None, VALUE, ends=now + 3600) == "team-a"
    assert caller_of(lua, None, VALUE, ends=now - 1) == "nil"


@pytest.mark.parametrize(
    ("networks", "address", "within"),
    [
        (["10.0.0.0/8"], "10.200.3.4", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["192.168.4.0/22"], "192.168.7.255", True),
        (["192.168.4.0/22"], "192.168.8.0", False),
        (["10.1.2.3/32"], "10.1.2.3", True),
        (["10.1.2.3/32"], "10.1.2.2", False),
        (["0.0.0.0/0"], "203.0.113.9", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["2001:db8::/33"], "2001:db8:7fff::1", True),
        (["2001:db8::/33"], "2001:db8:8000::1", False),
        (["10.0.0.0/8", "fd00::/8"], "fdab::1", True),
    ],
)
def test_networks(lua: Evaluated, networks: list[str], address: str, within: bool) -> None:
    exploded = [
        f"{ip_address(item.partition('/')[0]).exploded}/{item.partition('/')[2]}"
        for item in networks
    ]
    packed = "".join(f"\\{byte:03}" for byte in ip_address(address).packed)
    declared = {"keys": {}, "callers": {"a": {"from": exploded, "concurrent": 1}}}
    said = lua(
        'local callers = require "gateway_callers"\n'
        f"local declared = {literal(declared)}\n"
        "callers.init(declared)\n"
        f'return callers.may_come_from({{ from = declared.callers.a.from }}, "{packed}")'
    )
    assert said == str(within).lower()


def test_a_clock_that_is_set_back_locks_nobody_out(lua: Evaluated) -> None:
    """A rate is how much time has passed, whatever the clock says."""
    digest = sha256(VALUE.encode()).hexdigest()
    item = {"concurrent": 9, "rate": {"requests": 60, "seconds": 60, "burst": 1}}
    declared = {"keys": {digest: {"name": "back"}}, "callers": {"back": item}}
    said = lua(
        'local callers, counts = require "gateway_callers", require "gateway_counts"\n'
        "counts.init() counts.start()\n"
        f"callers.init({literal(declared)})\n"
        f"local caller, now, statuses = callers.find(nil, '{VALUE}'), ngx.now, {{}}\n"
        "for _, shift in ipairs { 0, -3600, -3600, 3600 } do\n"
        "  ngx.now = function() return now() + shift end\n"
        "  statuses[#statuses + 1] = callers.enter(caller, {}) and 'no' or 'yes'\n"
        "end\n"
        "ngx.now = now\n"
        "return table.concat(statuses, ' ')"
    )
    assert said == "yes yes no no"


@pytest.fixture(scope="module")
def limited() -> Iterator[Running]:
    keys = [
        {"name": "slow", "rate": "6/m", "burst": 2},
        {"name": "one", "concurrent": 1},
        {"name": "few", "models": ["gpt-oss:20b"]},
        {"name": "kind"},
        {"name": "strict", "overrides": "refuse"},
    ]
    with (
        tempfile.TemporaryDirectory() as directory,
        running(Path(directory), gateway_keys=keys) as gateway,
    ):
        yield gateway


def test_a_rate_is_told_and_held(limited: Running) -> None:
    seen = [limited.post("/api/chat", CHAT, "slow") for _ in range(4)]
    assert [answer[0] for answer in seen] == [200, 200, 200, 429]
    left = [answer[1]["x-ratelimit-remaining-requests"] for answer in seen]
    assert left == ["2", "1", "0", "0"]
    assert {answer[1]["x-ratelimit-limit-requests"] for answer in seen} == {"6"}
    # A request leaks in 10 s.
    assert 5 <= int(seen[3][1]["retry-after"]) <= 10
    assert seen[0][1]["x-ratelimit-reset-requests"] == "10s"


def test_requests_at_once(limited: Running) -> None:
    held: list[Any] = []
    limited.hold.clear()
    limited.held.clear()
    sender = threading.Thread(target=lambda: held.append(limited.post("/api/chat", CHAT, "one")))
    sender.start()
    try:
        while not limited.held.wait(10):
            raise AssertionError("the first request has not come")
        answer = limited.post("/api/chat", CHAT, "one")
        assert (answer[0], answer[1]["retry-after"]) == (429, "1")
    finally:
        limited.hold.set()
        sender.join()
    assert held[0][0] == 200
    assert limited.post("/api/chat", CHAT, "one")[0] == 200


@pytest.mark.parametrize("name", ["gpt-oss:20b", "GPT-OSS:20b", "library/gpt-oss:20b"])
def test_a_model_that_a_key_may_use(limited: Running, name: str) -> None:
    assert limited.post("/api/chat", {**CHAT, "model": name}, "few")[0] == 200


@pytest.mark.parametrize(
    "path", ["/api/chat", "/api/show", "/v1/chat/completions", "/v1/messages", "/v1/embeddings"]
)
def test_other_models_are_not_there_for_it(limited: Running, path: str) -> None:
    """... as one that nobody has."""
    before = len(limited.seen)
    answers = [limited.post(path, {"model": name}, "few") for name in ("m", "nobodys")]
    assert [answer[0] for answer in answers] == [404, 404]
    assert answers[0][2].replace(b"'m'", b"'nobodys'") == answers[1][2]
    assert [item for item in limited.seen[before:] if item[0] == path] == []


def test_ignored_fields_are_named(limited: Running) -> None:
    body = {**CHAT, "keep_alive": 0, "options": {"num_ctx": 5, "seed": 1}}
    status, headers, _ = limited.post("/api/chat", body, "kind")
    assert (status, headers["x-ignored-fields"]) == (200, "keep_alive, options.num_ctx")
    sent = next(text for path, text in reversed(limited.seen) if path == "/api/chat")
    assert b"keep_alive" not in sent
    assert b"num_ctx" not in sent
    assert b'"seed": 1' in sent
    assert limited.post("/api/chat", body, "strict")[0] == 400
