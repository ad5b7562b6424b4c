"""Everything that is refused, before any host is touched, and in which words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fleet.capabilities import CAPABILITIES
from fleet.declare.load import load_fleet
from fleet.gateway.declared import gateway_keys
from fleet.kit.errors import FleetError, SettingsError
from fleet.kit.secrets import EXAMPLE_KEY
from tests.fleets import (
    ALTERNATIVE_CONTAINERS,
    ALTERNATIVE_DIFY,
    ALTERNATIVE_GATEWAY,
    ALTERNATIVE_GPU,
    ALTERNATIVE_WEBUI,
    BOX,
    EDGE,
    GPU,
    Hosts,
    fleet_of,
    inventory_of,
)


def pair(gpu: Mapping[str, Any] | None = None, edge: Mapping[str, Any] | None = None) -> Hosts:
    """A sound fleet of two, but for what is changed."""
    return {
        "gpu1": ("gpu", {**GPU[1], **(gpu or {})}),
        "edge": ("gateway", {**EDGE[1], **(edge or {})}),
    }


def without(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


def problems(hosts: Hosts) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        fleet_of(hosts)
    return refused.value.problems


# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
    "models in a system directory": (
        pair({"ollama_models_dir": "/etc"}),
        "gpu1",
        ["ollama_models_dir", "/etc belongs to the system", "under /var/lib"],
    ),
    "models below a system directory": (
        pair({"ollama_models_dir": "/usr/lib/models"}),
        "gpu1",
        ["ollama_models_dir", "/usr/lib/models belongs to the system"],
    ),
    "no model": (pair({"ollama_models": []}), "gpu1", ["ollama_models = []", "name at least one"]),
    "front door for nobody": (
        pair(edge={"gateway_allow_from": []}),
        "edge",
        ["gateway_allow_from", "at least one network"],
    ),
    "sshd for nobody": (
        pair({"firewall_ssh_from": []}),
        "gpu1",
        ["firewall_ssh_from", "at least one network"],
    ),
    "token in the environment": (
        pair({"ollama_env": {"HF_TOKEN": "x"}}),
        "gpu1",
        ["ollama_env", "HF_TOKEN looks like a secret"],
    ),
    "password in the environment": (
        pair({"ollama_env": {"ALL_PROXY": "http://user:word@proxy:3128"}}),
        "gpu1",
        ["ollama_env", "ALL_PROXY looks like a secret"],
    ),
    "typo": (
        pair({"ollama_prot": 11435}),
        "gpu1",
        ["ollama_prot = 11435", "unknown setting", "did you mean ollama_port?"],
    ),
    "typo in a key of pyinfra": (
        pair({"ssh_usr": "ops"}),
        "gpu1",
        ["ssh_usr = 'ops'", "did you mean ssh_user?"],
    ),
    "key that has another name now": (
        pair({"firewall_enabled": False}),
        "gpu1",
        ['firewall_enabled = False: unknown setting; write firewall_backend = "none" for False'],
    ),
    "key like nothing": (
        pair({"colour": "red"}),
        "gpu1",
        ["colour = 'red'", "docs/settings.md lists every key"],
    ),
    "text for a number": (
        pair({"ollama_port": "11434"}),
        "gpu1",
        ["ollama_port = '11434'", "write a whole number, without quotes"],
    ),
    "boolean for a number": (
        pair({"ollama_num_parallel": True}),
        "gpu1",
        ["ollama_num_parallel = True", "valid integer"],
    ),
    "text for a boolean": (
        pair({"models_wait": "yes"}),
        "gpu1",
        ["models_wait = 'yes'", "write True or False"],
    ),
    "text for a list": (
        pair({"ollama_models": "gpt-oss:20b"}),
        "gpu1",
        ["ollama_models = 'gpt-oss:20b'", "not a list; write ['gpt-oss:20b']"],
    ),
    "bad model name": (
        pair({"ollama_models": ["gpt-oss:20b", "gpt oss"]}),
        "gpu1",
        ["ollama_models[1]", "gpt oss", "write [host/][namespace/]model[:tag]"],
    ),
    **{
        f"model: {why}": (
            pair({"ollama_models": ["gpt-oss:20b", declaration]}),
            "gpu1",
            ["ollama_models[1]", *parts],
        )
        for why, declaration, parts in (
            ("without a name", {"load": True}, ["'name' is missing; add it"]),
            ("unknown key", {"name": "a", "bas": "b"}, ["unknown key", "did you mean base?"]),
            ("short digest", {"name": "a", "digest": "17052f91a42e"}, ["64 lower-case"]),
            (
                "base and gguf",
                {"name": "a", "base": "b", "gguf": "/srv/x", "sha256": "ab" * 32},
                ["import the file as one model"],
            ),
            (
                "gguf without a checksum",
                {"name": "a", "gguf": "/srv/x.gguf"},
                ["gguf needs sha256", "run sha256sum"],
            ),
            ("checksum without a gguf", {"name": "a", "sha256": "ab" * 32}, ["sha256 is for gguf"]),
            (
                "gguf of no place",
                {"name": "a", "gguf": "x.gguf", "sha256": "ab" * 32},
                ["'x.gguf'", "neither an absolute path on the host nor an http(s) address"],
            ),
            (
                "gguf with a password",
                {"name": "a", "gguf": "http://u:hunter2@x/y", "sha256": "ab" * 32},
                ["without a password"],
            ),
            (
                "gguf that the unit cannot see",
                {"name": "a", "gguf": "/home/x.gguf", "sha256": "ab" * 32},
                ["is under /home", "put the file under /var, /srv, /data or /mnt"],
            ),
            (
                "pinned custom model",
                {"name": "a", "base": "b", "digest": "ab" * 32},
                ["pin the base"],
            ),
            (
                "parameters without a base",
                {"name": "a", "parameters": {"num_ctx": 4096}},
                ["need base", "write base = 'a' and a name of its own"],
            ),
            (
                "unknown parameter",
                {"name": "a", "base": "b", "parameters": {"num_cxt": 4096}},
                ["['parameters']['num_cxt'] = 4096", "did you mean num_ctx?"],
            ),
            (
                "text for a parameter",
                {"name": "a", "base": "b", "parameters": {"num_ctx": "48k"}},
                ["['num_ctx'] = '48k'", "valid integer"],
            ),
            (
                "parameter out of bounds",
                {"name": "a", "base": "b", "parameters": {"top_p": 1.5}},
                ["['top_p'] = 1.5", "less than or equal to 1"],
            ),
            ("its own base", {"name": "a", "base": "a:latest"}, ["is its own base"]),
            ("pinned auto", {"name": "auto", "digest": "ab" * 32}, ["declare the model itself"]),
            ("made auto", {"name": "auto", "base": "b"}, ["auto is chosen, not made"]),
            (
                "keep_alive alone",
                {"name": "a", "keep_alive": "-1"},
                ["keep_alive acts on load only", "add load = True"],
            ),
            (
                "keep_alive in words",
                {"name": "a", "load": True, "keep_alive": "for ever"},
                ["['keep_alive'] = 'for ever'", "not a duration", "-1 is for ever"],
            ),
            ("keep_alive 0", {"name": "a", "load": True, "keep_alive": 0}, ["0 unloads at once"]),
        )
    },
    "model declared twice": (
        pair({"ollama_models": ["embed", {"name": "embed:latest", "load": True}]}),
        "gpu1",
        ["ollama_models: embed:latest is declared twice", "keep one"],
    ),
    "custom model of a custom model": (
        pair({"ollama_models": [{"name": "a", "base": "b"}, {"name": "c", "base": "a"}]}),
        "gpu1",
        ["ollama_models: c: its base a is a custom model itself", "write base = 'b'"],
    ),
    "more to load than Ollama keeps": (
        pair(
            {
                "ollama_models": [{"name": "a", "load": True}, {"name": "b", "load": True}],
                "ollama_max_loaded_models": 1,
            }
        ),
        "gpu1",
        ["ollama_models: a, b are to be loaded", "ollama_max_loaded_models = 1", "raise it"],
    ),
    "one file of weights in two contexts": (
        pair(
            {
                "ollama_models": [
                    {"name": "a", "load": True},
                    {"name": "b", "base": "a", "parameters": {"num_ctx": 4096}, "load": True},
                ]
            }
        ),
        "gpu1",
        ["a and b share the weights of a:latest", "the same num_ctx, or load one"],
    ),
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
    "retry that begins above its bound": (
        pair({"models_retry_delay": "10m"}),
        "gpu1",
        ["models_retry_delay: 10m is longer than models_retry_delay_max = 5m"],
    ),
    "no patience at all": (
        pair({"models_no_progress": 0}),
        "gpu1",
        ["models_no_progress = 0", "shorter than a second"],
    ),
    "no attempt at all": (
        pair({"models_attempts": 0}),
        "gpu1",
        ["models_attempts = 0", "greater than or equal to 1"],
    ),
    "reserve below nothing": (
        pair({"models_disk_reserve": -1}),
        "gpu1",
        ["models_disk_reserve = -1", "greater than or equal to 0"],
    ),
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
    "ollama on the port of sshd": (
        pair({"ssh_port": 11434}),
        "gpu1",
        ["ssh_port and ollama_port", "11434", "a port of its own"],
    ),
    "front door on the port of ollama": (
        {"box": ("gpu gateway", {**BOX[1], "gateway_port": 11434})},
        "box",
        ["ollama_port and gateway_port", "11434", "a port of its own"],
    ),
    "open port is a service's own": (
        pair({"firewall_open_tcp": [9100, 11434]}),
        "gpu1",
        ["ollama_port and firewall_open_tcp", "11434", "a port of its own"],
    ),
    "gateway without keys": (
        pair(edge={"gateway_keys": []}),
        "edge",
        ["gateway_keys = ()", 'gateway_keys = ["team-a"]'],
    ),
    "bad key name": (
        pair(edge={"gateway_keys": ["Team A"]}),
        "edge",
        ["gateway_keys[0]", "Team A", "lower-case letters, digits and '-', such as team-a"],
    ),
    "ollama private without an address": (
        {"gpu1": ("gpu", {"ollama_listen": "private"})},
        "gpu1",
        ["ollama_listen = 'private'", "needs private_address"],
    ),
    "front door private without an address": (
        {"box": ("gpu gateway", without(BOX[1], "private_address"))},
        "box",
        ["gateway_listen = 'private'", "needs private_address"],
    ),
    **{
        f"private_address {address}": (
            pair({"private_address": address}),
            "gpu1",
            [f"private_address = '{address}'", "not a private address", "gateway_listen = 'any'"],
        )
        for address in ("8.8.8.8", "2600::1", "127.0.0.1", "0.0.0.0")
    },
    "private_address of no kind": (
        pair({"private_address": "gpu1.internal"}),
        "gpu1",
        ["private_address = 'gpu1.internal'", "write one such as '10.20.0.11'"],
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
    "version without a checksum": (
        pair({"ollama_version": "9.9.9"}),
        "gpu1",
        ["ollama_version = '9.9.9'", "no checksum", "set ollama_sha256"],
    ),
    "bad version": (
        pair({"ollama_version": "latest"}),
        "gpu1",
        ["ollama_version = 'latest'", "0.32.7"],
    ),
    "version with a v": (
        pair({"ollama_version": "v0.32.7"}),
        "gpu1",
        ["ollama_version = 'v0.32.7'", "a version of three numbers, such as 0.32.7"],
    ),
    "image without its digest": (
        pair({"ollama_image": "ollama/ollama:0.32.7"}),
        "gpu1",
        ["ollama_image", "its digest, such as ollama/ollama:0.32.7@sha256:", "imagetools inspect"],
    ),
    "version of a package without its revision": (
        pair({"toolkit_version": "1.20.0"}),
        "gpu1",
        ["toolkit_version = '1.20.0'", "with its revision, such as 1.19.1-1"],
    ),
    "date of another country": (
        pair(edge={"gateway_keys": [{"name": "a", "expires": "30.06.2027"}]}),
        "edge",
        ["gateway_keys[0]['expires'] = '30.06.2027'", "write 2027-06-30"],
    ),
    "no model is right": (
        pair({"ollama_models": ["gpt oss"]}),
        "gpu1",
        ["ollama_models[0] = 'gpt oss'"],
    ),
    "bad checksum": (
        pair({"ollama_sha256": "AB" * 32}),
        "gpu1",
        ["ollama_sha256", "64 lower-case hexadecimal digits"],
    ),
    "our variable in ollama_env": (
        pair({"ollama_env": {"OLLAMA_HOST": "0.0.0.0"}}),
        "gpu1",
        ["ollama_env", "OLLAMA_HOST is set by this project", "use its setting"],
    ),
    "an unset variable of ours in ollama_env": (
        pair({"ollama_env": {"HTTPS_PROXY": "http://proxy"}}),
        "gpu1",
        ["ollama_env", "HTTPS_PROXY is set by this project"],
    ),
    "prompts on disk": (
        pair({"ollama_env": {"OLLAMA_DEBUG_LOG_REQUESTS": "1"}}),
        "gpu1",
        ["OLLAMA_DEBUG_LOG_REQUESTS", "writes prompts to disk"],
    ),
    "a unit in the overhead": (
        pair({"ollama_env": {"OLLAMA_GPU_OVERHEAD": "1GiB"}}),
        "gpu1",
        ["OLLAMA_GPU_OVERHEAD = '1GiB' is no number", "1073741824"],
    ),
    "quote in a variable": (pair({"ollama_env": {"A": 'x"y'}}), "gpu1", ["ollama_env['A']"]),
    "line break in a variable": (pair({"ollama_env": {"A": "x\ny"}}), "gpu1", ["ollama_env['A']"]),
    "bad variable name": (pair({"ollama_env": {"a b": "x"}}), "gpu1", ["ollama_env['a b']"]),
    **{
        f"models in {path}": (
            pair({"ollama_models_dir": f"{path}/models"}),
            "gpu1",
            ["ollama_models_dir", f"{path}/models", "cannot see", "/var, /srv, /data or /mnt"],
        )
        for path in ("/home", "/root", "/tmp", "/run")  # noqa: S108 - refused
    },
    **{
        f"models in {path!r}": (
            pair({"ollama_models_dir": path}),
            "gpu1",
            [f"ollama_models_dir = {path!r}", "not an absolute path"],
        )
        for path in ("models", "/", "/data/../home/x", "/data/my models", "/data/50%")
    },
    "quantized cache without flash attention": (
        pair({"ollama_kv_cache_type": "q8_0", "ollama_flash_attention": False}),
        "gpu1",
        ["ollama_kv_cache_type", "q8_0", "ollama_flash_attention = True"],
    ),
    "unknown cache type": (
        pair({"ollama_kv_cache_type": "q2"}),
        "gpu1",
        ["ollama_kv_cache_type = 'q2'", "'f16', 'q8_0' or 'q4_0'"],
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
    "exception from Ollama's own lack of a proxy": (
        pair({"ollama_no_proxy": ["mirror"]}),
        "gpu1",
        ["ollama_no_proxy: there is no proxy to leave out", "set ollama_https_proxy"],
    ),
    "proxy for Ollama's own calls": (
        pair({"ollama_env": {"HTTP_PROXY": "http://proxy:3128"}}),
        "gpu1",
        ["ollama_env: HTTP_PROXY would catch calls", "use ollama_https_proxy"],
    ),
    "proxy for Ollama's own calls in lower case": (
        pair({"ollama_env": {"http_proxy": "http://proxy:3128"}}),
        "gpu1",
        ["ollama_env['http_proxy']"],
    ),
    "proxy for an instance's own calls": (
        pair({"ollama_instances": [{"name": "a", "port": 1, "env": {"HTTP_PROXY": "http://x"}}]}),
        "gpu1",
        ["ollama_instances: a: ollama_env: HTTP_PROXY would catch calls"],
    ),
    "insecure without a mirror": (
        pair({"models_registry_insecure": True}),
        "gpu1",
        ["models_registry_insecure", "set models_registry"],
    ),
    "mirror with a scheme": (
        pair({"models_registry": "http://mirror:5000"}),
        "gpu1",
        ["models_registry = 'http://mirror:5000'", "without http://", "mirror.internal:5000"],
    ),
    "one address for two hosts": (
        {**pair(), "gpu2": GPU},
        "gpu1, gpu2",
        ["private_address = '10.0.0.11'", "declared for 2 hosts"],
    ),
    "host in no group": (
        {**pair(), "db": ("databases", {})},
        "db",
        ["in groups databases", "needs gpu or gateway or dify", "a name that begins with _"],
    ),
    "compose that is too old": (
        {"box": ("", {"docker_enabled": True, "docker_compose_version": "2.23.3"})},
        "box",
        ["docker_compose_version = '2.23.3'", "older than 2.24"],
    ),
    "version of the distribution's Docker": (
        {
            "box": (
                "",
                {
                    "docker_enabled": True,
                    "docker_source": "distribution",
                    "docker_version": "28.5.2",
                },
            )
        },
        "box",
        ["docker_version", "set docker_source = 'docker'"],
    ),
    "rotation of the journal": (
        {
            "box": (
                "",
                {"docker_enabled": True, "docker_log_driver": "journald", "docker_log_max_size": 5},
            )
        },
        "box",
        ["docker_log_max_size", "set docker_log_driver = 'local'"],
    ),
    "exception from no proxy": (
        pair({"docker_no_proxy": ["mirror"]}),
        "gpu1",
        ["docker_no_proxy", "set docker_https_proxy"],
    ),
    "password in Docker's proxy": (
        pair({"docker_https_proxy": "http://me:secret@proxy:3128"}),
        "gpu1",
        ["docker_https_proxy", "holds a user or password"],
    ),
    "short fingerprint": (
        pair({"docker_repository_fingerprint": "0EBFCD88"}),
        "gpu1",
        ["docker_repository_fingerprint = '0EBFCD88'", "40 hexadecimal digits in capitals"],
    ),
    "runtime without Docker": (
        pair({"toolkit_runtime": True}),
        "gpu1",
        ["toolkit_runtime = True", "set docker_enabled = True"],
    ),
    "other models behind one gateway": (
        {
            **pair(),
            "gpu2": (
                "gpu",
                {**GPU[1], "private_address": "10.0.0.12", "ollama_models": ["gpt-oss:120b"]},
            ),
        },
        "gpu2",
        ["ollama_models = ['gpt-oss:120b']", "gpu1 has ['gpt-oss:20b']", "need the same models"],
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
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    """One mistake gives one line, with host, key, value and fix; no secret is made for it."""
    [line] = problems(hosts)
    assert line.startswith(f"{host}: ")
    assert [part for part in parts if part not in line] == [], line
    assert not own_secrets.exists()


@pytest.mark.parametrize(
    "hosts",
    [
        {"gpu1": ("gpu", {})},
        {"box": BOX},
        pair(),
        pair(ALTERNATIVE_GPU, ALTERNATIVE_GATEWAY),
    ],
    ids=["one GPU host, nothing declared", "both roles on one", "two hosts", "alternative"],
)
def test_sound_fleets_are_accepted(hosts: Hosts) -> None:
    assert [host.name for host in fleet_of(hosts)] == list(hosts)


def test_alternative_scenario_differs_in_every_setting() -> None:
    """... or a setting could be without effect and no rendering would show it."""
    hosts = pair(ALTERNATIVE_GPU, ALTERNATIVE_GATEWAY)
    others = {
        "box": ("containers", ALTERNATIVE_CONTAINERS),
        "chat": ("dify", ALTERNATIVE_DIFY),
        "page": ("webui", ALTERNATIVE_WEBUI),
    }
    fleet = fleet_of({**hosts, **others})
    places = {"gateway": "edge", "docker": "box", "toolkit": "box", "dify": "chat", "webui": "page"}
    same = []
    for model in (item.settings for item in CAPABILITIES):
        host = fleet[places.get(model.prefix.rstrip("_"), "gpu1")]
        loaded = host[model]
        same += [
            f"{model.prefix}{name}"
            for name, field in model.model_fields.items()
            if getattr(loaded, name) == field.default
        ]
    # Off, they leave nothing to plan, and only NVIDIA's and Docker's repositories have versions to
    # choose from; Dify's plugin comes from a package. Tests of their own cover them.
    assert same == [
        "firewall_backend",
        "ollama_instances",
        "ollama_image",
        "gateway_tls_certificate",
        "driver_source",
        "docker_source",
        "toolkit_enabled",
        "dify_plugin",
    ]


def test_all_problems_of_all_hosts_at_once() -> None:
    """Nobody mends one line, runs again, and is told of the next."""
    lines = problems(
        pair({"ollama_prot": 1, "ollama_port": "x", "models_wait": 3}, {"gateway_max_body": 0})
    )
    assert sorted(re.split(r"[ :=]+", line)[1] for line in lines) == [
        "gateway_max_body",
        "models_wait",
        "ollama_port",
        "ollama_prot",
    ]
    assert {line.split(":")[0] for line in lines} == {"gpu1", "edge"}


def test_relations_of_all_hosts_at_once() -> None:
    hosts = {
        "gpu1": ("gpu", {"ollama_version": "9.9.9"}),
        "gpu2": ("gpu", {"ollama_listen": "private"}),
        "edge": ("gateway", {**EDGE[1], "gateway_keys": []}),
    }
    assert [line.split(" = ")[0] for line in problems(hosts)] == [
        "gpu1: ollama_version",
        "gpu2: ollama_listen",
        "edge: gateway_keys",
        "gpu1: ollama_listen",
    ]


def test_error_says_that_nothing_was_changed() -> None:
    with pytest.raises(SettingsError, match=r"^2 settings refused, no host was changed:\n  - "):
        fleet_of(pair({"ollama_port": 0, "ssh_port": 0}))


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


def test_each_inventory_has_its_own_secrets(tmp_path: Path) -> None:
    """pyinfra puts every host of inventory/prod.py in a group `prod`."""
    (tmp_path / "inventory").mkdir()
    (tmp_path / "inventory" / "prod.py").touch()
    hosts = {name: (f"{groups} all-sites prod", data) for name, (groups, data) in pair().items()}
    fleet = load_fleet(inventory_of(hosts), CAPABILITIES)
    assert fleet.secrets.root == tmp_path / ".secrets" / "prod"


@pytest.mark.parametrize(
    "data",
    [
        {"ollama_https_proxy": "http://ops:hunter2@proxy:3128"},
        {"ollama_https_proxy": "ftp://ops:hunter2@proxy:3128"},
        {"ssh_pasword": "hunter2"},
        {"_sudo_pasword": "hunter2"},
    ],
    ids=lambda data: next(iter(data)),
)
def test_no_password_in_a_refusal(data: dict[str, str]) -> None:
    [line] = problems(pair(data))
    assert next(iter(data)) in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "key", ["models_wait_timeout", "driver_reboot_timeout", "firewall_confirm_within"]
)
def test_for_ever_is_not_advised_where_it_is_refused(key: str) -> None:
    [line] = problems(pair({key: "forever"}))
    assert "write 30s, 5m, 24h" in line
    assert "-1" not in line


def test_no_regular_expression_in_a_refusal() -> None:
    """Every setting that is text refuses a line break, in words."""
    hosts = {
        "gpu1": (
            "gpu gateway dify webui",
            {
                f"{model.prefix}{name}": ["\n"] if "tuple" in str(field.annotation) else "\n"
                for model in (item.settings for item in CAPABILITIES)
                for name, field in model.model_fields.items()
            },
        )
    }
    lines = problems(hosts)
    assert len(lines) > 50
    assert [line for line in lines if "pattern" in line] == []


def test_only_the_bad_item_is_shown() -> None:
    [line] = problems(pair({"ollama_models": ["gpt-oss:20b", "gpt oss"]}))
    assert line.startswith("gpu1: ollama_models[1] = 'gpt oss': ")


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


def test_renamed_keys_lead_to_keys_that_there_are() -> None:
    models = [item.settings for item in CAPABILITIES]
    known = {f"{model.prefix}{name}" for model in models for name in model.model_fields}
    renamed = {key: text for model in models for key, text in model.renamed.items()}
    assert "firewall_enabled" in renamed
    assert known & set(renamed) == set()
    assert [key for key, text in renamed.items() if text.split()[0] not in known] == []
