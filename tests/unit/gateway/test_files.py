"""The gateway's files, and what a static analysis says of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest

from fleet.declare.fleet import Fleet
from fleet.gateway.declared import gateway_keys
from fleet.gateway.files import (
    config_files,
    connection_files,
    curves,
    dropin_file,
    ready_servers,
    without_requests,
)
from fleet.gateway.paths import GATEWAY_CONFIG
from fleet.kit.files import ManagedFile
from tests.fleets import BOX, EDGE, GPU, Hosts, alternative, fleet_of
from tests.unit.rendered import lines, nft_listing

GPU6 = (GPU[0], {**GPU[1], "private_address": "fd00::11"})


class TestGateway:
    @staticmethod
    def config(fleet: Fleet) -> list[str]:
        return lines(TestGateway.text(fleet))

    @staticmethod
    def text(fleet: Fleet, *drained: str) -> str:
        return _named("nginx.conf", fleet, *drained).text

    @staticmethod
    def servers(fleet: Fleet) -> list[str]:
        text = _named("declared.lua", fleet).text.partition('["servers"] = ')[2]
        return [
            f"{address}:{port}"
            for address, port in re.findall(r'\["address"\] = "(.+?)", \["port"\] = (\d+)', text)
        ]

    def test_default(self, default: Fleet) -> None:
        config = self.config(default)
        assert [line for line in config if line.startswith("listen ")] == [
            "listen unix:/run/llm-fleet-status.sock;",
            "listen 10.0.0.2:8434 ssl;",
        ]
        assert self.servers(default) == ["10.0.0.11:11434"]
        assert "client_max_body_size 64m;" in config
        assert "proxy_read_timeout 900s;" in config

    def test_alternative(self, alternative: Fleet) -> None:
        config = self.config(alternative)
        assert [line for line in config if line.startswith("listen ")] == [
            "listen unix:/run/llm-fleet-status.sock;",
            "listen 0.0.0.0:80;",
            "listen [::]:80 ipv6only=on;",
            "listen 0.0.0.0:8443 ssl;",
            "listen [::]:8443 ssl ipv6only=on;",
        ]
        assert self.servers(alternative) == ["[fd00::11]:21434"]
        assert "client_max_body_size 256m;" in config
        assert "proxy_read_timeout 5400s;" in config

    def test_kernel_without_ipv6_is_not_asked_to_listen_there(self, alternative: Fleet) -> None:
        text = _named("nginx.conf", alternative, ipv6=False).text
        assert [line for line in lines(text) if line.startswith("listen ")][1:] == [
            "listen 0.0.0.0:80;",
            "listen 0.0.0.0:8443 ssl;",
        ]

    @pytest.mark.parametrize(
        ("hosts", "address"),
        [
            ({"gpu1": GPU, "edge": EDGE}, "10.0.0.2"),
            ({"edge": (BOX[0], BOX[1])}, None),
            ({"gpu1": GPU, "edge": (BOX[0], BOX[1])}, "10.0.0.5"),
            ({"edge": (BOX[0], {**BOX[1], "private_address": "fd00::5"}), "gpu1": GPU6}, None),
        ],
        ids=["others", "its own only", "both", "of another kind"],
    )
    def test_servers_are_called_from_the_declared_address(
        self, hosts: Hosts, address: str | None
    ) -> None:
        config = self.config(fleet_of(hosts))
        bound = [line for line in config if line.startswith("proxy_bind ") and "$" not in line]
        assert bound == ([f"proxy_bind {address};"] if address else [])

    def test_every_gpu_host_serves(self) -> None:
        gpus = {
            f"gpu{n}": ("gpu", {**GPU[1], "private_address": f"10.0.0.{n}"}) for n in range(11, 14)
        }
        fleet = fleet_of({**gpus, "edge": EDGE})
        assert self.servers(fleet) == [f"10.0.0.{n}:11434" for n in range(11, 14)]

    def test_drained_host_gets_nothing(self) -> None:
        gpus = {f"gpu{n}": ("gpu", {**GPU[1], "private_address": f"10.0.0.{n}"}) for n in (11, 12)}
        idle = _named("idle", fleet_of({**gpus, "edge": EDGE}), "gpu12").text
        assert idle.splitlines()[1:] == ["gpu12"]

    @pytest.mark.parametrize(
        ("openssl", "first"), [((3, 0), "X25519"), ((3, 4), "X25519"), ((3, 5), "X25519MLKEM768")]
    )
    def test_curves_are_those_that_openssl_knows(
        self, openssl: tuple[int, int], first: str
    ) -> None:
        """OpenSSL 3.0 refuses the whole list for one name that it does not know."""
        assert curves(openssl).split(":")[0] == first

    def test_key_never_goes_further(self, fleet: Fleet) -> None:
        config = self.config(fleet)
        assert 'proxy_set_header Authorization "";' in config
        [log] = re.findall(r"log_format fleet (.+?);\n", "\n".join(config) + "\n", flags=re.DOTALL)
        assert "$http_authorization" not in log
        # Headers of a location replace all that are set further out.
        passing = [text for text in self.text(fleet).split(" location ") if "proxy_pass" in text]
        assert len(passing) == 3
        for text in passing:
            for header in ("Authorization", "X-Api-Key", "Origin", "Content-Encoding"):
                assert f'proxy_set_header {header} "";' in text, text

    def test_keys_file_holds_each_key_and_no_output_shows_it(self, alternative: Fleet) -> None:
        config, keys = (_named(name, alternative) for name in ("nginx.conf", "declared.lua"))
        values = {
            name: key.get_secret_value()
            for name, key in gateway_keys(alternative, alternative["edge"]).items()
        }
        assert list(values) == ["team-a", "team-b", "team-c", "team-d", "team-e"]
        end = int(datetime(2027, 1, 31, 11, tzinfo=UTC).timestamp())
        for name, value in values.items():
            ends = f', ["ends"] = {end}' if name == "team-b" else ""
            digest = sha256(value.encode()).hexdigest()
            assert f'["{digest}"] = {{ ["name"] = "{name}"{ends} }}' in keys.text
            assert value not in f"{keys!r} {config!r}"
            assert value not in config.text + keys.text
        assert keys.mode == "600"

    @pytest.mark.parametrize(
        ("settings", "where"),
        [
            ({}, "https://10.0.0.2:8434"),
            ({"gateway_names": ["llm.example.com"]}, "https://llm.example.com:8434"),
            ({"gateway_listen": "any"}, "https://edge:8434"),
            ({"gateway_listen": "loopback"}, "https://127.0.0.1:8434"),
            ({"private_address": "fd00::2", "gateway_port": 443}, "https://[fd00::2]:443"),
        ],
    )
    def test_redirects_to_its_own_name(self, settings: dict[str, object], where: str) -> None:
        """... and never to one that the caller gives."""
        gpu = {**GPU[1], "ollama_listen": "private", "private_address": "fd00::11"}
        if "private_address" not in settings:
            gpu = dict(GPU[1])
        edge = {**EDGE[1], "gateway_http_port": 80, **settings}
        text = self.text(fleet_of({"gpu1": ("gpu", gpu), "edge": ("gateway", edge)}))
        assert set(re.findall(r"return 308 (.+);", text)) == {f"{where}$request_uri"}
        assert "$host" not in text

    def test_drop_in_reads_our_configuration_only(self, default: Fleet) -> None:
        text = dropin_file(default["edge"]).text
        commands = [line for line in lines(text) if line.startswith("Exec")]
        for kind in ("ExecStartPre", "ExecStart", "ExecReload"):
            first, *ours = [line for line in commands if line.startswith(f"{kind}=")]
            assert first == f"{kind}="
            assert any(f"-c {GATEWAY_CONFIG}" in line for line in ours), kind

    def test_nginx_restarts_when_it_listens_elsewhere(self) -> None:
        """A reload fails to listen on all addresses while it listens on one of them."""
        listens = [
            dropin_file(fleet_of({"gpu1": GPU, "edge": ("gateway", {**EDGE[1], **data})})["edge"])
            for data in ({}, {"gateway_listen": "any"}, {"gateway_port": 9000})
        ]
        assert len({item.text for item in listens}) == 3


def test_who_gets_requests() -> None:
    """Neither a host that somebody has drained nor a server that no deploy has found ready."""
    fleet = _one_and_two()
    everybody = ["gpu11", "gpu12/a", "gpu12/b"]
    assert without_requests(fleet, [], everybody) == []
    assert without_requests(fleet, ["gpu12"], everybody) == ["gpu12/a", "gpu12/b"]
    assert without_requests(fleet, [], ["gpu12/b", "gone"]) == ["gpu11", "gpu12/a"]
    assert without_requests(fleet, ["gpu11"], []) == everybody


@pytest.mark.parametrize(
    ("served", "ready"),
    [
        (["gpu11", "gpu12"], ["gpu11", "gpu12/a", "gpu12/b"]),
        (["gpu11/x", "gpu12/a", "gpu12/x"], ["gpu11", "gpu12/a", "gpu12/b"]),
        (["gpu12/a"], ["gpu12/a"]),
        (["gpu1", "gpu1/a", "gpu121"], []),
    ],
    ids=["now several", "other names", "one more", "other hosts"],
)
def test_other_names_take_no_host_out(served: list[str], ready: list[str]) -> None:
    assert sorted(ready_servers(_one_and_two(), served)) == ready
    assert not {*ready} & {*without_requests(_one_and_two(), [], served)}


def _one_and_two() -> Fleet:
    """A host with one server, and one with two."""
    gpus = {f"gpu{n}": ("gpu", {**GPU[1], "private_address": f"10.0.0.{n}"}) for n in (11, 12)}
    two = [{"name": "a", "port": 11434, "gpus": [0]}, {"name": "b", "port": 11435, "gpus": [1]}]
    gpus["gpu12"][1]["ollama_instances"] = two
    return fleet_of({**gpus, "edge": EDGE})


def _named(name: str, fleet: Fleet, *drained: str, ipv6: bool = True) -> ManagedFile:
    files = config_files(fleet["edge"], fleet, (3, 5), list(drained), ipv6)
    [found] = [file for file in files if file.staged_name == name]
    return found


# What gixy finds, and why it stays. A finding that is not here fails the test.
REASONS = {
    "ssl_ecdh_curve": "the group is only named where the host's OpenSSL is 3.5 or newer (a fact)",
    "worker_rlimit_nofile_vs_connections": "LimitNOFILE in the unit's drop-in sets it for all",
    "proxy_pass_normalized": "the path is matched whole against a fixed list without escapes",
}


@pytest.mark.parametrize(
    "hosts",
    [{"gpu1": GPU, "edge": EDGE}, alternative("gpu1", "edge")],
    ids=["default", "alternative"],
)
def test_gixy_finds_nothing_without_a_reason(hosts: Hosts, tmp_path: Path) -> None:
    found = findings(hosts, tmp_path)
    assert {item["plugin"]: item["reason"] for item in found if item["plugin"] not in REASONS} == {}


def test_gixy_looks_at_it(tmp_path: Path) -> None:
    """A hole in the very configuration is found: the test above is not about nothing."""
    hosts: Hosts = {"gpu1": GPU, "edge": EDGE}
    found = findings(
        hosts, tmp_path, ("proxy_pass http://servers/$call;", "proxy_pass http://$arg_x;")
    )
    assert "ssrf" in {item["plugin"] for item in found}


def findings(hosts: Hosts, directory: Path, change: tuple[str, str] = ("", "")) -> list[dict]:
    fleet = fleet_of(hosts)
    for file in config_files(fleet["edge"], fleet, (3, 5), []):
        (directory / file.staged_name).write_text(file.text.replace(*change))
    result = subprocess.run(
        [Path(sys.executable).parent / "gixy", "-f", "json", directory / "nginx.conf"],
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({}, "ip saddr { 10.0.0.2, 10.0.0.11 } accept"),
        ({"gateway_connections_free": ["10.0.0.0/8", "fd00::/8"]}, "ip6 saddr fd00::/8 accept"),
        ({"gateway_connections": 8}, "ct count over 8 } reject with tcp reset"),
    ],
)
def test_nft_takes_the_limit(tmp_path: Path, settings: dict[str, object], rule: str) -> None:
    edge = {"private_address": "10.0.0.2", "gateway_keys": ["team-a"], **settings}
    fleet = fleet_of({"gpu1": GPU, "edge": ("gateway", edge)})
    rules, _ = connection_files(fleet["edge"], fleet)
    listed = nft_listing(tmp_path, rules.text)
    assert rule in " ".join(listed.split())
    assert "tcp dport != 8434 accept" in listed
