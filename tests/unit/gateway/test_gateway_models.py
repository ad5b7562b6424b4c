"""What names stand for, and who has which model, as nginx knows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.gateway.routed import FakeServer, Routed, entry, routed, started, until

ALIASES = {"gpt-4o": "gpt-oss:120b", "small": "llama3.2", "Mini:v1": "gpt-oss:20b"}
FALLBACKS = {"gpt-oss:120b": "gpt-oss:20b", "gpt-oss:20b": "tiny", "lost": "gone"}


class Fleet:
    """Two hosts with Ollama that share a model, and one that speaks OpenAI's dialect alone."""

    def __init__(self) -> None:
        self.one = FakeServer("one", "gpt-oss:20b", "llama3.2:3b", "tiny:latest", "Qwen3:4B")
        self.two = FakeServer("two", "gpt-oss:20b", "gpt-oss:120b", "acme/own:v2", "qwen3:8b")
        self.other = FakeServer("other", surface="openai")
        self.other.entries = [{"id": "gpt-oss:120b", "object": "model", "created": 5}]

    def declared(self) -> list[dict[str, Any]]:
        return [
            self.one.declared(),
            self.two.declared("gpt-oss:20b", "gpt-oss:120b", "promised:1b"),
            self.other.declared("gpt-oss:120b"),
        ]


@contextmanager
def _running(directory: Path) -> Iterator[tuple[Fleet, Routed]]:
    servers = Fleet()
    with started(servers.one, servers.two, servers.other):
        declared = servers.declared()
        with routed(directory, *declared, aliases=ALIASES, fallbacks=FALLBACKS) as gateway:
            until(lambda: gateway.on("acme/own:v2") == {"two"})
            until(lambda: gateway.on("qwen3:4b") == {"one"})
            until(lambda: servers.other.looks)
            yield servers, gateway


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routed]:
    """A fleet that stays as it is."""
    with _running(tmp_path_factory.mktemp("steady")) as (_, gateway):
        yield gateway


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Fleet, Routed]]:
    """A fleet of its own."""
    with _running(tmp_path) as running:
        yield running


@pytest.mark.parametrize(
    ("name", "model", "on"),
    [
        ("gpt-oss:20b", "gpt-oss:20b", {"one", "two"}),
        ("GPT-OSS:20B", "gpt-oss:20b", {"one", "two"}),
        ("registry.ollama.ai/library/gpt-oss:20b", "gpt-oss:20b", {"one", "two"}),
        ("tiny", "tiny:latest", {"one"}),
        ("llama3.2", "llama3.2:3b", {"one"}),
        ("acme/own", "acme/own:v2", {"two"}),
        ("gpt-4o", "gpt-oss:120b", {"two"}),
        ("GPT-4o:latest", "gpt-oss:120b", {"two"}),
        ("small", "llama3.2:3b", {"one"}),
        ("mini:V1", "gpt-oss:20b", {"one", "two"}),
    ],
)
def test_names_as_clients_write_them(steady: Routed, name: str, model: str, on: set[str]) -> None:
    found = steady.find(name)
    assert (found["model"], {server for server, _ in found["on"]}) == (model, on)


@pytest.mark.parametrize(
    "name", ["gpt-oss", "qwen3", "own", "nope", "gpt-oss:latest", "mini", "", "a b", "x" * 900]
)
def test_what_is_no_name_or_of_two_models_is_unknown(steady: Routed, name: str) -> None:
    assert steady.find(name) == {"why": "unknown"}


def test_each_server_is_asked_by_the_name_that_it_lists(fleet: tuple[Fleet, Routed]) -> None:
    servers, gateway = fleet
    servers.two.entries.append(entry("QWEN3:4b"))
    until(lambda: len(gateway.on("qwen3:4b")) == 2)
    found = gateway.find("qwen3:4b")["on"]
    assert sorted(found) == [["one", "Qwen3:4B"], ["two", "QWEN3:4b"]]


def test_a_server_is_asked_only_over_a_surface_that_it_has(steady: Routed) -> None:
    assert steady.on("gpt-oss:120b", surface="openai") == {"two", "other"}
    assert steady.on("gpt-oss:120b", surface="ollama") == {"two"}
    assert steady.find("gpt-oss:120b", surface="anthropic") == {"why": "other"}


def test_what_a_key_may_not_use_is_not_there(steady: Routed) -> None:
    gateway = steady
    assert gateway.find("gpt-oss:20b", allowed=["gpt-oss:120b"]) == {"why": "unknown"}
    assert gateway.find("gpt-4o", allowed=["gpt-oss:20b", "small"]) == {"why": "unknown"}
    # Of two tags it may use one, which is what the bare name means to it.
    assert gateway.find("gpt-oss", allowed=["gpt-oss:20b"])["model"] == "gpt-oss:20b"
    # One that is allowed without its tag is the only one that there is.
    assert gateway.on("llama3.2:3b", allowed=["llama3.2"]) == {"one"}
    assert gateway.on("llama3.2:3b", allowed=["small"]) == {"one"}
    assert gateway.find("gpt-oss:20b", allowed=["gpt-oss"]) == {"why": "unknown"}
    # Who may use a model may call it by an alias, and the other way round.
    for allowed in (["gpt-4o"], ["gpt-oss:120b"]):
        for name in ("gpt-4o", "gpt-oss:120b"):
            assert gateway.on(name, allowed=allowed) == {"two"}


def test_a_declared_model_that_no_server_has_is_down_and_not_unknown(
    steady: Routed,
) -> None:
    assert steady.find("promised:1b") == {"why": "down"}


def test_a_closed_server_is_asked_for_its_own_models(tmp_path: Path) -> None:
    """It lists what is on a disk that it shares, for others to serve."""
    disk = ("gpt-oss:120b", "gpt-oss:20b", "left:1b")
    big, small = FakeServer("big", *disk), FakeServer("small", *disk)
    with started(big, small):
        declared = [big.declared("gpt-oss:120b"), small.declared("GPT-OSS:20b", closed=True)]
        with routed(tmp_path, *declared) as gateway:
            until(lambda: gateway.on("left:1b") == {"big"})
            until(lambda: gateway.on("gpt-oss:20b") == {"big", "small"})
            assert gateway.on("gpt-oss:120b") == {"big"}


def test_the_fallback_serves_while_nobody_has_the_model(fleet: tuple[Fleet, Routed]) -> None:
    servers, gateway = fleet
    servers.two.kill()
    until(lambda: gateway.find("gpt-oss:120b").get("model") == "gpt-oss:20b")
    assert gateway.on("gpt-4o") == {"one"}
    assert gateway.find("gpt-oss:120b", allowed=["gpt-oss:120b"]) == {"why": "down"}
    del servers.one.entries[0]
    until(lambda: gateway.find("gpt-oss:120b").get("model") == "tiny:latest")
    servers.two.start()
    until(lambda: gateway.find("gpt-oss:120b").get("model") == "gpt-oss:120b")


def test_what_is_pulled_or_deleted_is_known_within_two_seconds(
    fleet: tuple[Fleet, Routed],
) -> None:
    servers, gateway = fleet
    servers.one.entries.append(entry("new:1b"))
    until(lambda: gateway.on("new") == {"one"}, 2)
    servers.one.entries.pop()
    until(lambda: gateway.find("new") == {"why": "unknown"}, 2)


def test_the_models_of_a_host_that_is_down_are_down(fleet: tuple[Fleet, Routed]) -> None:
    servers, gateway = fleet
    servers.one.kill()
    until(lambda: gateway.find("llama3.2:3b") == {"why": "down"})
    assert gateway.on("gpt-oss:20b") == {"two"}


def test_a_server_that_gets_no_requests_has_its_models_all_the_same(tmp_path: Path) -> None:
    one, two = FakeServer("h1/a", "m:1b"), FakeServer("h2/a", "m:1b", "only:1b")
    with started(one, two):
        declared = one.declared(), two.declared()
        with routed(tmp_path, *declared) as gateway:
            assert gateway.on("m:1b") == {"h1/a", "h2/a"}
            gateway.reload(*declared, idle=("h2/a",))
            assert gateway.on("m:1b") == {"h1/a"}
            assert gateway.find("only:1b") == {"why": "down"}


def test_until_the_first_look_the_declared_models_count(tmp_path: Path) -> None:
    one = FakeServer("one", "real:1b")
    with started(one):
        one.frozen = True
        with routed(tmp_path, one.declared("said:1b")) as gateway:
            assert gateway.on("said:1b") == {"one"}
            one.frozen = False
            until(lambda: gateway.on("real:1b") == {"one"})
            assert gateway.find("said:1b") == {"why": "down"}


def test_a_model_without_a_name_that_clients_can_say_harms_nothing(tmp_path: Path) -> None:
    one = FakeServer("one", "good:1b")
    one.entries[:0] = [entry('no name\\ "of" any [kind]'), {"size": 1}]
    with started(one), routed(tmp_path, one.declared("good:1b")) as gateway:
        until(lambda: one.looks)
        until(lambda: "good:1b" in gateway.text("tags"))
        assert gateway.on("good:1b") == {"one"}
        assert [item["name"] for item in json.loads(gateway.text("tags"))["models"]] == ["good:1b"]
