"""How servers that are not ours are declared, and what of that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.gateway.backend import Backend
from fleet.gateway.backends import backend_files, socket_of
from fleet.gateway.declared_lua import declared_lua
from fleet.gateway.facts import Nameservers, Seen, seen_servers
from fleet.gateway.files import calls_from, ready_servers, without_requests
from fleet.gateway.offered import declared_names, holders
from fleet.gateway.paths import GATEWAY_BACKENDS
from fleet.gateway.preflight import refuse_without_dns
from fleet.gateway.settings import Gateway
from fleet.kit.errors import FleetError
from fleet.kit.secrets import SecretStore
from tests.fleets import EDGE, GPU, Hosts, fleet_of
from tests.unit.refusals import problems

FAR: dict[str, Any] = {"name": "far", "address": "https://far.example.com", "models": ["far:1b"]}
KEY = {"key": "provider"}


def hosts(*backends: dict[str, Any], **gpu: Any) -> Hosts:
    edge = ("gateway", {**EDGE[1], "gateway_backends": list(backends)})
    return {"gpu1": ("gpu", {**GPU[1], **gpu}), "edge": edge}


def _refused(hosts_: Hosts, host: str, *parts: str) -> None:
    [line] = problems(hosts_)
    assert line.startswith(f"{host}: gateway_backends")
    assert [part for part in parts if part not in line] == [], line


@pytest.fixture
def store(own_secrets: Path) -> SecretStore:
    return SecretStore(own_secrets / "default")


class TestDeclared:
    @pytest.mark.parametrize(
        ("address", "host", "port", "is_number"),
        [
            ("https://far.example.com", "far.example.com", 443, False),
            ("http://far", "far", 80, False),
            ("http://10.0.0.9:8000/", "10.0.0.9", 8000, True),
            ("http://[fd00::9]:8000", "fd00::9", 8000, True),
        ],
    )
    def test_addresses(self, address: str, host: str, port: int, is_number: bool) -> None:
        item = Backend(**{**FAR, "address": address})
        assert (item.host, item.port, item.is_number) == (host, port, is_number)

    @pytest.mark.parametrize(
        "address",
        [
            "far.example.com", "ftp://far", "https://far/v1", "https://far?x", "https://a b",
            "https://user:pw@far", "https://far:0", "https://far:70000", "https://far;}",
            "https://$host", "https://Far", "http://[10.0.0.1]", "http://[::1", "https://-a", "",
            "http://10.0.0", "https://far\n",
        ],
    )  # fmt: skip
    def test_what_is_no_address(self, address: str) -> None:
        with pytest.raises(ValueError, match=r"not the address|no IP address"):
            Backend(**{**FAR, "address": address})

    @pytest.mark.parametrize(
        ("other", "why"),
        [
            ({"models": []}, "nobody would ask it"),
            ({"models": ["a", "a"]}, "more than once"),
            ({"models": {"a": 'b"'}}, "not a model's name"),
            ({"models": {"a": "$b"}}, "not a model's name"),
            ({"surfaces": ["anthropic"]}, "lacks 'openai'"),
            ({"surfaces": ["ollama", "openai"]}, "anthropic"),
            ({"health": "v1"}, "not a path"),
            ({"health": "/v1;"}, "not a path"),
            ({"address": "http://far", "ca": "ca.pem"}, "are for https"),
            ({"address": "http://far", "tls_name": "a.example.com"}, "are for https"),
            ({"address": "https://10.0.0.9"}, "add tls_name"),
            ({"name": "Far"}, "key name"),
            ({"key": "a/b"}, "key name"),
        ],
    )
    def test_what_is_refused(self, other: dict[str, Any], why: str) -> None:
        with pytest.raises(ValueError, match=why):
            Backend(**{**FAR, **other})

    def test_one_name_is_one_backend(self) -> None:
        with pytest.raises(ValueError, match="far is declared more than once"):
            Gateway(backends=[FAR, FAR])  # type: ignore[arg-type]


class TestRefusedOfAFleet:
    def test_the_name_of_a_host(self) -> None:
        _refused(hosts({**FAR, "name": "gpu1"}), "edge", "is a host of this inventory")

    def test_gateways_that_differ(self) -> None:
        other = ("gateway", {**EDGE[1], "private_address": "10.0.0.3"})
        _refused({**hosts(FAR), "edge2": other}, "edge2", "is not that of edge", "group")

    def test_an_authority_that_is_not_there(self) -> None:
        _refused(hosts({**FAR, "ca": "ca.pem"}), "edge", "ca = 'ca.pem': no such file")

    def test_an_authority_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("text")
        _refused(hosts({**FAR, "ca": "ca.pem"}), "edge", "holds no certificate")

    def test_a_key_that_the_store_lacks(self) -> None:
        _refused(hosts({**FAR, **KEY}), "edge", "the secrets store has no gateway_backend_provider")

    @pytest.mark.parametrize("value", ["a b", "a$b", 'a"b', "a\nb", "ä", "a;"])
    def test_a_key_that_no_header_could_have(self, store: SecretStore, value: str) -> None:
        store.replace("gateway_backend_provider", value)
        _refused(hosts({**FAR, **KEY}), "edge", "is no key")

    def test_an_alias_may_lead_to_its_model(self) -> None:
        edge = {**EDGE[1], "gateway_backends": [FAR], "gateway_aliases": {"x": "far:1b"}}
        assert declared_names(fleet_of({"gpu1": GPU, "edge": ("gateway", edge)}))[-1] == "far:1b"

    def test_a_gateway_with_backends_alone(self) -> None:
        fleet = fleet_of({"edge": ("gateway", {**EDGE[1], "gateway_backends": [FAR]})})
        assert [item.name for item in fleet.servers()] == ["far"]


class TestWhatFollows:
    def test_it_is_a_server_that_is_not_ours(self) -> None:
        fleet = fleet_of(hosts({**FAR, "models": {"far:1b": "real"}}))
        server = fleet.servers()[-1]
        assert (server.name, server.ours, server.models) == ("far", False, ("far:1b",))
        assert [item.name for item in holders(fleet.servers())["far:1b"]] == ["far"]

    def test_two_gateways_have_it_once(self) -> None:
        gateway = {**EDGE[1], "gateway_backends": [FAR]}
        other = {**gateway, "private_address": "10.0.0.3"}
        fleet = fleet_of({"a": ("gateway", gateway), "b": ("gateway", other)})
        assert [item.name for item in fleet.servers()] == ["far"]

    def test_no_deploy_has_to_find_it_ready(self) -> None:
        fleet = fleet_of(hosts(FAR))
        assert ready_servers(fleet, ["far"]) == set()
        assert without_requests(fleet, [], []) == ["gpu1"]
        assert without_requests(fleet, ["far"], ["gpu1"]) == ["far"]

    def test_hosts_are_called_from_the_same_address_as_without(self) -> None:
        fleet = fleet_of(hosts({**FAR, "address": "http://[fd00::9]:1"}))
        assert str(calls_from(fleet["edge"], fleet)) == EDGE[1]["private_address"]

    def test_its_key_is_in_one_file_that_root_alone_reads(self, store: SecretStore) -> None:
        store.replace("gateway_backend_provider", "sk-of-ours")
        fleet = fleet_of(hosts({**FAR, **KEY}))
        me = fleet["edge"]
        [file] = backend_files(me, fleet, ("127.0.0.53", "[fd00::1]"))
        assert (file.path, file.mode) == (GATEWAY_BACKENDS, "600")
        assert '"Bearer sk-of-ours"' in file.text
        assert "sk-of-ours" not in repr(file)
        assert "resolver 127.0.0.53 [fd00::1] valid=30s;" in file.text
        assert "proxy_ssl_verify on;" in file.text
        declared = declared_lua(me, fleet, None)
        assert "sk-of-ours" not in declared
        assert f'"unix:{socket_of("far")}"' in declared

    def test_a_fleet_without_has_no_such_file(self) -> None:
        fleet = fleet_of(hosts())
        assert backend_files(fleet["edge"], fleet, ()) == []


class TestFacts:
    def test_nameservers(self) -> None:
        lines = ["# x", "nameserver 10.0.0.1", "nameserver fe80::1%eth0", "nameserver fd00::1",
                 "search a", "nameserver"]  # fmt: skip
        assert Nameservers().process(lines) == ("10.0.0.1", "[fd00::1]")

    def test_a_name_needs_somebody_to_ask(self) -> None:
        me = fleet_of(hosts(FAR))["edge"]
        refuse_without_dns(me, ["10.0.0.1"])
        with pytest.raises(FleetError, match=r"far\.example\.com.*resolv\.conf"):
            refuse_without_dns(me, [])
        refuse_without_dns(fleet_of(hosts({**FAR, "address": "http://10.0.0.9"}))["edge"], [])

    def test_what_nginx_saw(self) -> None:
        text = '[{"name":"a","well":true},{"name":"b","well":false,"why":"x"},{"name":"c"}]'
        assert seen_servers([text]) == {
            "a": Seen(True, ""), "b": Seen(False, "x"), "c": Seen(None, ""),
        }  # fmt: skip
        assert seen_servers([]) is None
        assert seen_servers(["{}"]) is None
