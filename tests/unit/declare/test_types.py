"""Types that several capabilities' settings have."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.ollama.settings import Ollama
from tests.fleets import Hosts, fleet_of
from tests.unit.refusals import assert_refused, pair, problems

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "duration in words": (
        pair({"ollama_keep_alive": "5 minutes"}),
        "gpu1",
        ["ollama_keep_alive = '5 minutes'", "not a duration", "write 30s, 5m, 24h", "-1 is for"],
    ),
    "duration with an unknown unit": (
        pair(edge={"gateway_read_timeout": "1d"}),
        "edge",
        ["gateway_read_timeout = '1d'", "not a duration"],
    ),
    "port 0": (pair({"ollama_port": 0}), "gpu1", ["ollama_port = 0", "greater than or equal to 1"]),
    "port 65536": (
        pair(edge={"gateway_port": 65536}),
        "edge",
        ["gateway_port = 65536", "less than or equal to 65535"],
    ),
    "bad checksum": (
        pair({"ollama_sha256": "AB" * 32}),
        "gpu1",
        ["ollama_sha256", "64 lower-case hexadecimal digits"],
    ),
    "image without its digest": (
        pair({"ollama_image": "ollama/ollama:0.32.7"}),
        "gpu1",
        ["ollama_image", "its digest, such as ollama/ollama:0.32.7@sha256:", "imagetools inspect"],
    ),
    "short fingerprint": (
        pair({"docker_repository_fingerprint": "0EBFCD88"}),
        "gpu1",
        ["docker_repository_fingerprint = '0EBFCD88'", "40 hexadecimal digits in capitals"],
    ),
    "bad key name": (
        pair(edge={"gateway_keys": ["Team A"]}),
        "edge",
        ["gateway_keys[0]", "Team A", "lower-case letters, digits and '-', such as team-a"],
    ),
    "source that is no network": (
        pair(edge={"gateway_allow_from": ["10.0.0.1/8"]}),
        "edge",
        ["gateway_allow_from[0]", "10.0.0.1/8", "host bits are set; write '10.0.0.0/8'"],
    ),
    "source in words": (
        pair(edge={"gateway_allow_from": ["the office"]}),
        "edge",
        ["gateway_allow_from[0] = 'the office'", "write one such as '10.0.0.0/8'"],
    ),
    "proxy with a password": (
        pair({"ollama_https_proxy": "http://ops:hunter2@proxy:3128"}),
        "gpu1",
        ["ollama_https_proxy", "holds a user or password", "allow the host's address"],
    ),
    "proxy of another kind": (
        pair({"ollama_https_proxy": "socks5://proxy"}),
        "gpu1",
        ["ollama_https_proxy = 'socks5://proxy'", "http:// or https://"],
    ),
    "quote in a variable": (pair({"ollama_env": {"A": 'x"y'}}), "gpu1", ["ollama_env['A']"]),
    "another line break in a variable": (
        pair({"ollama_env": {"A": "x\u2028y"}}),
        "gpu1",
        ["ollama_env['A']"],
    ),
    "line break in a variable": (pair({"ollama_env": {"A": "x\ny"}}), "gpu1", ["ollama_env['A']"]),
    "bad variable name": (pair({"ollama_env": {"a b": "x"}}), "gpu1", ["ollama_env['a b']"]),
    "private_address of no kind": (
        pair({"private_address": "gpu1.internal"}),
        "gpu1",
        ["private_address = 'gpu1.internal'", "write one such as '10.20.0.11'"],
    ),
    **{
        f"{key} in {path!r}": (
            pair({key: path}),
            "gpu1",
            [f"{key} = {path!r}", "is no place for a service's data", fix],
        )
        for key, path, fix in (
            ("docker_data_root", "//etc", "/var/lib/docker"),
            ("docker_data_root", "/var/lib/docker/x", "/var/lib/docker"),
            ("dify_backup_dir", "/etc/./dify", "/var/backups/"),
            ("webui_backup_dir", "/var/backups", "/var/backups/"),
        )
    },
    **{
        f"models in {path!r}": (
            pair({"ollama_models_dir": path}),
            "gpu1",
            [f"ollama_models_dir = {path!r}", "not an absolute path"],
        )
        for path in (
            "models",
            "/",
            "//",
            "/data/../home/x",
            "/data/my models",
            "/data/50%",
            "/data/$(id)",
            "/data/a;b",
            "/data/`id`",
            "/data/a\nb",
            "/data/a\x00b",
            "/data/a,b",
            "/data/a:b",
            "/data/\u0663",
        )
    },
    **{
        f"address {text!r}": (
            pair({"driver_repository_url": text}),
            "gpu1",
            [f"driver_repository_url = {text!r}", words],
        )
        for text, words in (
            ("http://mirror\n.internal", "not an http:// or https:// address"),
            ("http://mirror.internal/a\x00b", "not an http:// or https:// address"),
            ("http://mirror.internal/a\tb", "not an http:// or https:// address"),
            ("http://mirror.internal/$x", "not an http:// or https:// address"),
            ("http://mirror.internal/a'b", "not an http:// or https:// address"),
            ("http://mirror.internal/?a=b", "has a '?'"),
            ("http://mirror.internal:99999", "out of range"),
            ("http://mirror.internal:0", "has port 0"),
            ("http://-mirror.internal", "no host name"),
            ("http://10.0.0.256", "no IP address"),
            ("http://[fe80::1%25eth0]", "not an http:// or https:// address"),
        )
    },
    **{
        f"network {value!r}": (
            pair({"firewall_ssh_from": [value]}),
            "gpu1",
            [f"firewall_ssh_from[0] = {value!r}"],
        )
        for value in (
            (),
            (1, 2),
            b"\n\x00\x00\x01",
            8,
            1.5,
            None,
            [],
            {},
            "fe80::%eth0/64",
            "\u0661.0.0.0/8",
        )
    },
    **{
        f"interface {name!r}": (
            pair({"firewall_container_interfaces": [name]}),
            "gpu1",
            [f"firewall_container_interfaces[0] = {name!r}", "an interface's name"],
        )
        for name in (
            "*",
            "e*",
            "eth*",
            "en*",
            "b*",
            "wg*",
            "br-0123456789abcde",
            "a b",
            "\u00e9th0",
        )
    },
    **{
        f"digits of other scripts in {key}": (
            pair({key: value}),
            "gpu1",
            [f"{key} = {value!r}"],
        )
        for key, value in (
            ("ollama_version", "\u0660.32.7"),
            ("driver_version", "58\uff10.95.05"),
            ("toolkit_version", "1.19.\u0661-1"),
            ("models_registry", "mirror:\u0665000"),
            ("ollama_keep_alive", "\u0665m"),
        )
    },
    "half a character": (
        pair({"ollama_env": {"A": "\ud800"}}),
        "gpu1",
        ["ollama_env['A'] = '\\ud800'"],
    ),
    "longer than anything counts": (
        pair({"ollama_keep_alive": "999999999h"}),
        "gpu1",
        ["ollama_keep_alive = '999999999h'", "longer than ten years"],
    ),
    "more than anything counts": (
        pair({"ollama_max_queue": 2**40}),
        "gpu1",
        ["ollama_max_queue = 1099511627776", "less than or equal to 2147483647"],
    ),
    "no number": (
        pair({"models_slow_rate": float("nan")}),
        "gpu1",
        ["models_slow_rate = nan", "a finite number"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


@pytest.mark.parametrize(
    "key", ["models_wait_timeout", "driver_reboot_timeout", "firewall_confirm_within"]
)
def test_for_ever_is_not_advised_where_it_is_refused(key: str) -> None:
    [line] = problems(pair({key: "forever"}))
    assert "write 30s, 5m, 24h" in line
    assert "-1" not in line


@pytest.mark.parametrize(
    "hosts",
    [
        pytest.param(pair(edge={"gateway_read_timeout": "-1"}), id="nginx knows no for ever"),
        pytest.param(pair(edge={"gateway_read_timeout": "100ms"}), id="rounded to 0 s"),
        pytest.param(pair({"models_wait_timeout": "-1"}), id="given up at once, not never"),
        pytest.param(pair({"private_address": 17}), id="number read as the address 0.0.0.17"),
        pytest.param(pair(edge={"gateway_allow_from": [8]}), id="number read as 0.0.0.8/32"),
        pytest.param(pair({"private_address": "fe80::1"}), id="link-local needs an interface"),
    ],
)
def test_traps_are_refused(hosts: Hosts) -> None:
    assert len(problems(hosts)) == 1


def test_sha256_is_read_alike_everywhere() -> None:
    """Of a release as of a model: some tools show `sha256:` before the digits."""
    digits = "ab" * 32
    model = {"name": "gpt-oss:20b", "digest": f"sha256:{digits}"}
    declared = fleet_of(pair({"ollama_sha256": f"sha256:{digits}", "ollama_models": [model]}))
    settings = declared["gpu1"][Ollama]
    assert settings.sha256 == settings.models[0].digest == digits
    [line] = problems(pair({"ollama_sha256": f"sha512:{digits}"}))
    assert "not a SHA-256: 64 lower-case hexadecimal digits" in line
