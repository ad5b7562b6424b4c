"""What of Dify is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.kit.errors import SettingsError
from tests.alternatives.dify import LEAST
from tests.fleets import EDGE, GPU, fleet_of

BOX = {"private_address": "10.0.0.5", "ollama_listen": "private", **LEAST}


def refusals(groups: str = "gpu dify", others: Any = None, **data: Any) -> str:
    """What is refused of a host that differs from a sound one by `data`; None takes a key out."""
    declared = {key: value for key, value in (BOX | data).items() if value is not None}
    with pytest.raises(SettingsError) as caught:
        fleet_of({"box": (groups, declared), **(others or {})})
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"dify_sha256": None}, "box: dify_sha256 is missing; set it to the SHA-256 of"),
        ({"dify_owner_email": None}, "box: dify_owner_email is missing"),
        ({"dify_owner_email": "admin@localhost"}, "a name with a dot in it"),
        ({"dify_owner_email": "admin@192.168.1.1"}, "a name with a dot in it"),
        ({"dify_owner_email": "Admin@example.com"}, "write it in lower case"),
        ({"dify_owner_name": ""}, "dify_owner_name = ''"),
        ({"dify_owner_name": "x" * 31}, "dify_owner_name"),
        ({"dify_plugin": None}, "dify_plugin is missing: without it Dify knows no Ollama"),
        ({"dify_plugin": "langgenius/ollama:1.0.0"}, "dify_plugin = 'langgenius/ollama:1.0.0'"),
        ({"dify_plugin_package": "a.difypkg"}, "leave one of them out"),
        ({"dify_plugin_sha256": "ab" * 32}, "belongs to dify_plugin_package"),
        (
            {"dify_plugin": None, "dify_plugin_package": "a.difypkg",
             "dify_plugin_sha256": "ab" * 32},
            "box: dify_plugin_package = 'a.difypkg': no such file; paths are relative to",
        ),
        ({"dify_version": "1.14.2"}, "dify_version = '1.14.2': this project deploys 1.15.0 and ab"),
        ({"dify_http_proxy": "http://p:3128"}, "does not know dify_http_proxy; set dify_plugin_pa"),
        ({"dify_images": {"nginx:latest": "latest"}}, "dify_images['nginx:latest']"),
        ({"dify_listen": "private"}, "without dify_allow_from: nobody could reach it"),
        ({"dify_allow_from": ["10.0.0.0/8"]}, "set dify_listen = 'private'"),
        ({"dify_subnet": "8.8.8.0/24"}, "not a private IPv4 network"),
        ({"dify_subnet": "fd00::/64"}, "not a private IPv4 network"),
        ({"dify_port": 11434}, "ollama_port and dify_port are all 11434"),
        ({"dify_no_proxy": ["a"]}, "there is no proxy to leave out"),
        ({"dify_env": {"SECRET_KEY": "x"}}, "SECRET_KEY is set by this project"),
        ({"dify_env": {"INTERNAL_FILES_URL": "x"}}, "INTERNAL_FILES_URL is set by this project"),
        ({"dify_env": {"S3_SECRET_KEY": "x"}}, "S3_SECRET_KEY looks like a secret"),
        ({"dify_env": {"COMPOSE_PROFILES": ""}}, "COMPOSE_PROFILES would change which"),
        ({"dify_env": {"NGINX_PORT": "81"}}, "NGINX_PORT would change"),
        ({"dify_env": {"VECTOR_STORE": "qdrant"}}, "VECTOR_STORE would change"),
        ({"dify_env": {"PGDATA": "/srv"}}, "PGDATA would change"),
        ({"dify_env": {"STORAGE_TYPE": "s3"}}, "STORAGE_TYPE would change"),
        ({"dify_env": {"LOG_FORMAT": "$x"}}, "LOG_FORMAT'] = '$x': not text that Compose reads"),
        ({"dify_models": ["llama3"]}, "dify_models: 'llama3' is none of the models"),
        ({"dify_models": ["gpt-oss:20b", "gpt-oss:20b"]}, "is declared more than once"),
        (
            {"dify_models": [{"name": "gpt-oss:20b", "max_tokens": 9000}]},
            "max_tokens = 9000 is above context_size = 8192",
        ),
        (
            {"dify_models": [{"name": "gpt-oss:20b"}], "ollama_context_length": 4096},
            "context_size = 8192 is above ollama_context_length = 4096 of box",
        ),
        ({"ollama_listen": "loopback"}, "Dify's containers could not reach it"),
        ({"dify_ollama": "gateway"}, "no gateway of the inventory can be reached"),
        ({"firewall_container_interfaces": ["docker0"]}, "does not hold br-dify; add it"),
    ],
)  # fmt: skip
def test_refused(data: dict[str, Any], words: str) -> None:
    assert words in refusals(**data)


CHAT = {
    **{key: value for key, value in BOX.items() if key != "ollama_listen"},
    "dify_ollama": "gateway",
}


def test_gateway_needs_a_key_for_dify() -> None:
    with pytest.raises(SettingsError, match=r"'dify' is not in gateway_keys of edge; add .*overri"):
        fleet_of({"edge": EDGE, "gpu1": GPU, "chat": ("dify", CHAT)})


@pytest.mark.parametrize(
    ("key", "edge", "words"),
    [
        ({"allow_from": ["10.1.0.0/16"]}, {}, "has an allow_from without 10.0.0.5"),
        ({}, {"gateway_allow_from": ["10.1.0.0/16"]}, "edge: gateway_allow_from = ['10.1.0.0/16']"),
    ],
)
def test_gateway_turns_dify_away(key: dict[str, Any], edge: dict[str, Any], words: str) -> None:
    gateway = {**EDGE[1], "gateway_keys": [{"name": "dify", **key}], **edge}
    with pytest.raises(SettingsError) as caught:
        fleet_of({"edge": ("gateway", gateway), "gpu1": GPU, "chat": ("dify", CHAT)})
    assert words in str(caught.value)


def test_dify_on_the_gateway_calls_from_its_own_network() -> None:
    """The firewall lets its bridge in, whatever gateway_allow_from says; nginx sees the daemon."""

    def box(source: str) -> dict[str, Any]:
        keys = [{"name": "dify", "allow_from": [source]}]
        return {**CHAT, "gateway_keys": keys, "gateway_allow_from": ["10.1.0.0/16"]}

    fleet_of({"box": ("gpu gateway dify", box("172.30.91.250"))})
    with pytest.raises(SettingsError, match=r"has an allow_from without 172\.30\.91\.250"):
        fleet_of({"box": ("gpu gateway dify", box("10.0.0.5"))})


def test_host_without_ollama() -> None:
    words = refusals("dify", ollama_listen=None)
    assert "dify_ollama = 'host', but the host is not in group gpu" in words


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("db_password", "difyai123456", "prints for everybody"),
        ("db_password", "with$sign-and-more", "is not at least 16 letters"),
        ("init_password", "x" * 31, "is not 16 to 30 letters"),
        ("owner_password", "onlyletters", "a letter and a digit among them"),
        ("agent_server_secret_key", "x" * 42, "is not 32 bytes"),
    ],
)
def test_stored_secret_of_a_wrong_form(name: str, value: str, words: str) -> None:
    store = fleet_of({"box": ("gpu dify", BOX)}).secrets
    store.root.mkdir(parents=True)
    path = store.path(f"dify_box_{name}")
    path.write_text(value)
    path.chmod(0o600)
    said = refusals()
    assert words in said
    assert value not in said
