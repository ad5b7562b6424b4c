"""What of a gateway cannot work with the hosts behind it, and which stored keys are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from fleet.gateway import tls
from fleet.gateway.declared import gateway_keys
from fleet.kit.errors import FleetError
from fleet.kit.secrets import EXAMPLE_KEY, SecretStore
from tests.fleets import (
    EDGE,
    GPU,
    Hosts,
    fleet_of,
)
from tests.unit.refusals import assert_refused, pair, problems


def behind(*models: Sequence[Any], **gateway: Any) -> Hosts:
    """A host for each of the lists of `models`, behind one gateway."""
    hosts = {
        f"gpu{n}": (
            "gpu",
            {**GPU[1], "private_address": f"10.0.0.1{n}", "ollama_models": list(names)},
        )
        for n, names in enumerate(models, 1)
    }
    return {**hosts, "edge": ("gateway", {**EDGE[1], **gateway})}


# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "models that differ behind one gateway": (
        {
            "gpu1": ("gpu", {**GPU[1], "ollama_models": [{"name": "a", "digest": "ab" * 32}]}),
            "gpu2": (
                "gpu",
                {**GPU[1], "private_address": "10.0.0.12", "ollama_models": ["a"]},
            ),
            "edge": EDGE,
        },
        "gpu2",
        ["ollama_models: 'a:latest' is declared in another way than for gpu1"],
    ),
    "gateway without keys": (
        pair(edge={"gateway_keys": []}),
        "edge",
        ["gateway_keys = ()", 'gateway_keys = ["team-a"]'],
    ),
    "gateway whose keys have all ended": (
        pair(
            edge={
                "gateway_keys": [
                    {"name": "a", "expires": "2024-06-30"},
                    {"name": "b", "expires": "2025-01-31"},
                ]
            }
        ),
        "edge",
        ["every key has ended (a at 2024-07-01 00:00 UTC; b at ", "declare one that is valid"],
    ),
    "gateway cannot reach a loopback GPU host": (
        pair({"ollama_listen": "loopback"}),
        "gpu1",
        ["ollama_listen = 'loopback'", "gateway edge", "set ollama_listen = 'private'"],
    ),
    "gateway without an address to call from": (
        {"gpu1": GPU, "edge": ("gateway", {"gateway_listen": "any", "gateway_keys": ["a"]})},
        "edge",
        ["private_address is missing", "gpu1 opens its API only to the gateways' addresses"],
    ),
    "gateway with nothing behind it": ({"edge": EDGE}, "edge", ["without any host in group gpu"]),
    "custom models that differ in their base": (
        behind(
            [{"name": "analyst", "base": "a", "system": "Be brief."}],
            [{"name": "Analyst:latest", "base": "b", "system": "Be brief."}],
        ),
        "gpu2",
        ["ollama_models: 'Analyst:latest' is declared in another way than for gpu1", "alike"],
    ),
    "alias to nothing": (
        behind(["a"], ["b:1"], gateway_aliases={"gpt-4o": "b"}),
        "edge",
        ["gateway_aliases: 'gpt-4o': 'b' is no model of any host; there are a, b:1"],
    ),
    "alias that hides a model": (
        behind(["a"], ["b"], gateway_aliases={"A:latest": "b"}),
        "edge",
        ["gateway_aliases: 'A:latest' is a model of its own (a)", "take another name"],
    ),
    "alias that hides a host's choice": (
        behind(["auto"], ["b"], gateway_aliases={"auto": "b"}),
        "edge",
        ["gateway_aliases: 'auto' is a model of its own (auto)"],
    ),
    "aliases that are one name": (
        behind(["a"], ["b"], gateway_aliases={"gpt": "a", "GPT:latest": "b"}),
        "edge",
        ["gateway_aliases: 'GPT:latest' is the same name to clients as 'gpt'", "keep one"],
    ),
    "alias to an alias": (
        behind(["a"], ["b"], gateway_aliases={"one": "two", "two": "a"}),
        "edge",
        ["gateway_aliases: 'one': 'two' is an alias itself; name the model"],
    ),
    "alias to itself": (
        behind(["a"], ["b"], gateway_aliases={"one": "one:latest"}),
        "edge",
        ["gateway_aliases: 'one': 'one:latest' is an alias itself"],
    ),
    "fallback to nothing": (
        behind(["a"], ["b"], gateway_fallbacks={"a": "c"}),
        "edge",
        ["gateway_fallbacks: 'a': 'c' is no model of any host; there are a, b"],
    ),
    "fallback of nothing": (
        behind(["a"], ["b"], gateway_fallbacks={"c": "a"}),
        "edge",
        ["gateway_fallbacks: 'c': 'c' is no model of any host; there are a, b"],
    ),
    "fallback of an alias": (
        behind(["a"], ["b"], gateway_aliases={"c": "a"}, gateway_fallbacks={"c": "b"}),
        "edge",
        ["gateway_fallbacks: 'c': 'c' is an alias; name the model"],
    ),
    "fallback twice": (
        behind(["a"], ["b", "c"], gateway_fallbacks={"a": "b", "a:latest": "c"}),
        "edge",
        ["gateway_fallbacks: 'a:latest' is the same model as 'a'", "keep one"],
    ),
    "fallback to itself": (
        behind(["a"], ["b"], gateway_fallbacks={"a": "A"}),
        "edge",
        ["gateway_fallbacks: 'a': a:latest -> a:latest goes round in a circle"],
    ),
    "fallbacks in a circle": (
        behind(["a"], ["b", "c"], gateway_fallbacks={"c": "b", "b": "a", "a": "b"}),
        "edge",
        ["gateway_fallbacks: 'a': a:latest -> b:latest -> a:latest goes round", "take one"],
    ),
    "key for a model that nobody has": (
        behind(
            ["a"],
            ["b"],
            gateway_aliases={"c": "a"},
            gateway_keys=["all", {"name": "ci", "models": ["A", "c", "d:1"]}],
        ),
        "edge",
        ["gateway_keys: ci: models: 'd:1' is no model of any host", "there are a, b, c"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


def test_hosts_may_differ(own_secrets: Path) -> None:
    """One name is one model; how much of it a host has memory for is its own."""
    made = {"name": "analyst", "base": "a", "system": "Be brief."}
    sound = behind(
        ["a", "auto", {**made, "load": True}],
        [{"name": "b", "load": True}, made],
        ["auto", {"name": "b"}],
        gateway_aliases={"gpt-4o": "b", "own": "auto"},
        gateway_fallbacks={"a": "b", "b": "auto"},
        gateway_keys=[{"name": "ci", "models": ["B:latest", "own"]}],
    )
    groups, data = sound["gpu1"]
    fleet = fleet_of({**sound, "gpu1": (groups, {**data, "ollama_context_length": 8192})})
    assert [server.models for server in fleet.servers()][1] == ("b", "analyst")


class TestStoredKeys:
    """Keys that somebody put into the store by hand."""

    @staticmethod
    def store(root: Path, value: str) -> Path:
        path = root / "default" / "gateway_key_team-a"
        path.parent.mkdir(parents=True)
        path.touch(0o600)
        path.write_text(value)
        return path

    def test_example_key_is_refused(self, own_secrets: Path) -> None:
        path = self.store(own_secrets, EXAMPLE_KEY)
        [line] = problems(pair())
        assert line.startswith("edge: gateway_keys: 'team-a' has the example key")
        assert f"delete {path}" in line
        assert EXAMPLE_KEY not in line

    @pytest.mark.parametrize("value", ["hunter2", "sk-" + "AB" * 32, "sk-" + "ab" * 31])
    def test_key_of_another_form_is_refused(self, own_secrets: Path, value: str) -> None:
        path = self.store(own_secrets, value)
        [line] = problems(pair())
        assert f"{path} is not sk- and 64 lower-case hexadecimal digits; delete the file" in line
        assert value not in line

    def test_kept_key_is_used(self, own_secrets: Path) -> None:
        value = "sk-" + "ab" * 32
        self.store(own_secrets, value)
        fleet = fleet_of(pair())
        assert gateway_keys(fleet, fleet["edge"])["team-a"].get_secret_value() == value

    def test_world_readable_store_is_refused(self, own_secrets: Path) -> None:
        self.store(own_secrets, "sk-" + "ab" * 32).chmod(0o644)
        with pytest.raises(FleetError, match="chmod 600"):
            fleet_of(pair())


class TestGivenCertificate:
    """`given`, refused before any host is touched."""

    HOSTS: ClassVar[Hosts] = {
        "gpu1": GPU,
        "edge": (
            "gateway",
            {**EDGE[1], "gateway_tls": "given", "gateway_tls_certificate": "own.pem"},
        ),
    }

    def test_refused_until_all_is_there(self, tmp_path: Path, own_secrets: Path) -> None:
        with pytest.raises(FleetError, match=r"edge: gateway_tls_certificate = .*no such file"):
            fleet_of(self.HOSTS)
        (tmp_path / "own.pem").write_text("hello")
        with pytest.raises(FleetError, match="its key is missing; put it, mode 600, at"):
            fleet_of(self.HOSTS)
        SecretStore(own_secrets / "default").replace(tls.GIVEN_KEY, "hello")
        with pytest.raises(FleetError, match=r"gateway_tls_certificate = .own\.pem.: not PEM"):
            fleet_of(self.HOSTS)
