"""What nginx answers about models for the whole fleet."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.routed import FakeServer, Routed, entry, routed, started, until

OLD = entry("old:1b", modified_at="2024-02-29T23:59:59.25-02:30", size=274877906944)
OWN = entry("acme/Own:v2", modified_at="2026-11-30T12:00:00Z", details={"parent_model": ""})
SHARED = entry("gpt-oss:20b", modified_at="2026-10-01T00:00:00Z")
VLLM = {
    "id": "served:latest", "object": "model", "created": 1790000000, "owned_by": "vllm",
    "root": "/srv/models/served", "parent": None, "max_model_len": 512,
    "permission": [{"id": "x", "is_blocking": False}],
}  # fmt: skip
LOADED = {**SHARED, "expires_at": "2319-03-03T02:18:13+01:00", "size_vram": 5, "context_length": 9}


class Fleet:
    def __init__(self) -> None:
        self.one, self.two = FakeServer("one"), FakeServer("two")
        self.one.entries, self.two.entries = [SHARED, OLD], [OWN, SHARED]
        self.three = FakeServer("three", surface="openai")
        self.three.entries = [VLLM]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Fleet, Routed]]:
    servers = Fleet()
    with started(servers.one, servers.two, servers.three):
        declared = [one.declared("old:1b") for one in (servers.one, servers.two)]
        declared.append(servers.three.declared("served:latest"))
        with routed(tmp_path, *declared, aliases={"gpt-4o": "acme/own:v2"}) as gateway:
            until(lambda: servers.three.looks)
            until(lambda: gateway.on("gpt-oss:20b") == {"one", "two"})
            yield servers, gateway


def _ids(answer: dict[str, Any]) -> list[str]:
    return [item["id"] for item in answer["data"]]


def test_v1_models_is_the_union_as_ollama_writes_it(fleet: tuple[Fleet, Routed]) -> None:
    status, answer = fleet[1].call("openai")
    own = {"object": "model", "created": 1796040000, "owned_by": "acme"}
    assert status == 200
    assert answer == {
        "object": "list",
        "data": [
            {"id": "acme/Own:v2", **own},
            # What it stands for is the field that other servers have for it.
            {"id": "gpt-4o", **own, "root": "acme/Own:v2"},
            {"id": "gpt-oss:20b", "object": "model", "created": 1790812800, "owned_by": "library"},
            # No path of the server's disk.
            {
                "id": "served:latest", "object": "model", "created": 1790000000,
                "owned_by": "vllm", "max_model_len": 512,
            },
            {"id": "old:1b", "object": "model", "created": 1709260199, "owned_by": "library"},
        ],
    }  # fmt: skip


def test_a_slash_is_written_as_servers_write_it(fleet: tuple[Fleet, Routed]) -> None:
    assert '{"id":"acme/Own:v2",' in fleet[1].text("openai")


def test_api_tags_has_each_model_once_as_its_server_wrote_it(fleet: tuple[Fleet, Routed]) -> None:
    servers, gateway = fleet
    text = gateway.text("tags")
    alias = {**OWN, "name": "gpt-4o", "model": "gpt-4o", "details": {"parent_model": "acme/Own:v2"}}
    assert json.loads(text) == {"models": [OWN, alias, SHARED, OLD]}
    # To the letter: no empty list became an object, no number lost a digit.
    for item in (OWN, SHARED, OLD):
        assert json.dumps(item, separators=(",", ":")) in text
    assert text.startswith('{"models":[{"name":')
    servers.two.kill()
    until(lambda: gateway.on("gpt-oss:20b") == {"one"})
    assert json.loads(gateway.text("tags")) == {"models": [SHARED, OLD]}


def test_lists_show_what_a_key_may_use(fleet: tuple[Fleet, Routed]) -> None:
    gateway = fleet[1]
    assert _ids(gateway.call("openai", allowed=["gpt-oss:20b"])[1]) == ["gpt-oss:20b"]
    assert _ids(gateway.call("openai", allowed=["gpt-oss"])[1]) == ["gpt-oss:20b"]
    both = ["acme/Own:v2", "gpt-4o"]
    assert _ids(gateway.call("openai", allowed=["gpt-4o"])[1]) == both
    assert _ids(gateway.call("openai", allowed=["acme/own:v2"])[1]) == both
    for call, empty in (("openai", {"object": "list", "data": []}), ("tags", {"models": []})):
        assert gateway.call(call, allowed=["nothing"]) == (200, empty)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("old:1b", {"created": 1709260199, "owned_by": "library"}),
        ("OLD", {"created": 1709260199, "owned_by": "library"}),
        ("served", {"created": 1790000000, "owned_by": "vllm", "max_model_len": 512}),
        ("gpt-4o", {"created": 1796040000, "owned_by": "acme", "root": "acme/Own:v2"}),
    ],
)
def test_one_model_by_the_name_that_was_asked_for(
    fleet: tuple[Fleet, Routed], name: str, answer: dict[str, Any]
) -> None:
    said = fleet[1].call("openai_one", name=name)
    assert said == (200, {"id": name, "object": "model", **answer})


@pytest.mark.parametrize("allowed", [None, ["gpt-oss:20b"]])
def test_a_model_that_is_not_there_or_not_for_this_key_is_a_404(
    fleet: tuple[Fleet, Routed], allowed: list[str] | None
) -> None:
    for name, said in [("nope", "nope:latest"), ('no "name"', 'no "name"')] + (
        [("old:1b", "old:1b")] if allowed else []
    ):
        status, answer = fleet[1].call("openai_one", name=name, allowed=allowed)
        assert status == 404
        assert answer["error"] == {
            "message": f"model '{said}' not found",
            "type": "not_found_error", "param": None, "code": None,
        }  # fmt: skip


@pytest.mark.parametrize("odd", [None, 5, [1], {}, "soon"])
def test_what_one_server_says_oddly_keeps_no_list_from_anybody(tmp_path: Path, odd: Any) -> None:
    one, two = FakeServer("one", "m:1b"), FakeServer("two", "n:1b")
    one.entries = [{**entry("m:1b"), "modified_at": odd, "details": odd}]
    with started(one, two), routed(tmp_path, one.declared("m:1b"), two.declared()) as gateway:
        until(lambda: '"modified_at"' in gateway.text("tags"))
        until(lambda: gateway.text("tags").count('"modified_at"') == 2)
        assert [item["id"] for item in gateway.call("openai")[1]["data"]] == ["n:1b", "m:1b"]


def test_a_model_whose_hosts_are_down_is_no_404(fleet: tuple[Fleet, Routed]) -> None:
    servers, gateway = fleet
    servers.three.kill()
    until(lambda: gateway.find("served", surface="openai") == {"why": "down"})
    status, answer = gateway.call("openai_one", name="served")
    assert status == 503
    assert answer["error"]["message"] == "no host with the model 'served' answers now"


def test_ps_has_each_loaded_model_of_each_server(fleet: tuple[Fleet, Routed]) -> None:
    servers, gateway = fleet
    assert gateway.text("ps") == '{"models":[]}'
    servers.one.loaded = [LOADED, {**LOADED, "name": "old:1b"}]
    servers.two.loaded = [{**LOADED, "size": 7}]
    time.sleep(1.05)
    assert gateway.call("ps")[1] == {"models": [*servers.one.loaded, *servers.two.loaded]}
    only = gateway.call("ps", allowed=["old"])[1]
    assert only == {"models": [servers.one.loaded[1]]}


def test_ps_waits_a_second_for_a_server_and_no_longer(fleet: tuple[Fleet, Routed]) -> None:
    servers, gateway = fleet
    servers.one.loaded = [LOADED]
    servers.two.frozen = True
    began = time.monotonic()
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: gateway.call("ps"), range(10)))
    assert time.monotonic() - began < 2.5
    assert answers == [(200, {"models": [LOADED]})] * 10


def test_ps_asks_servers_once_a_second_however_many_ask(fleet: tuple[Fleet, Routed]) -> None:
    servers, gateway = fleet
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: gateway.call("ps"), range(60)))
    assert len(servers.one.asked_ps) <= 2
