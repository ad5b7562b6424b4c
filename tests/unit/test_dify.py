"""What Dify is told, what is refused, and how its programs on the host judge what they see."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fleet.dify import declared as dify
from fleet.dify.backups import read_backup
from fleet.kit.errors import FleetError, SettingsError
from tests.fleets import EDGE, GPU, fleet_of

BOX: dict[str, Any] = {
    "private_address": "10.0.0.5",
    "ollama_listen": "private",
    "dify_sha256": "ab" * 32,
    "dify_owner_email": "owner@fleet.internal",
    "dify_plugin": "langgenius/ollama:1.0.0@" + "cd" * 32,
}


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
        ({"dify_env": {"LOG_FORMAT": "$x"}}, "LOG_FORMAT has a $ in it"),
        ({"dify_models": ["llama3"]}, "dify_models: 'llama3' is not in ollama_models of box"),
        ({"dify_models": ["gpt-oss:20b", "gpt-oss:20b"]}, "is declared more than once"),
        (
            {"dify_models": [{"name": "gpt-oss:20b", "max_tokens": 9000}]},
            "max_tokens = 9000 is above context_size = 8192",
        ),
        (
            {"dify_models": [{"name": "gpt-oss:20b"}], "ollama_context_length": 4096},
            "context_size = 8192 is above ollama_context_length = 4096 of box",
        ),
        ({"ollama_models": ["auto"]}, "'auto' is no name to tell Dify"),
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
    door = {**EDGE[1], "gateway_keys": [{"name": "dify", **key}], **edge}
    with pytest.raises(SettingsError) as caught:
        fleet_of({"edge": ("gateway", door), "gpu1": GPU, "chat": ("dify", CHAT)})
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


def test_secrets_are_made_once_and_fit_their_forms() -> None:
    fleet = fleet_of({"box": ("gpu dify", BOX)})
    first = dify.secrets_of(fleet["box"], fleet)
    assert dify.secrets_of(fleet["box"], fleet) == first
    assert len(set(first.values())) == len(dify.SECRETS)
    for name, secret in dify.SECRETS.items():
        for _ in range(50):
            assert re.fullmatch(secret.form, secret.make()), name
    assert len(base64.urlsafe_b64decode(first["agent_server_secret_key"] + "=")) == 32


def test_containers_fetch_files_from_each_other() -> None:
    """Dify's plugins would be sent to the address in people's browsers otherwise."""
    fleet = fleet_of({"box": ("gpu dify", {**BOX, "dify_public_url": "https://dify.example"})})
    told = dify.environment(fleet["box"], fleet)
    assert told["INTERNAL_FILES_URL"] == "http://api:5001"
    assert told["FILES_URL"] == "https://dify.example"


def backup(path: Path, **members: Any) -> Path:
    """An archive as `dify_stack.py` makes one."""
    texts = {name.replace("_json", ".json"): json.dumps(value) for name, value in members.items()}
    texts = {name.replace("_", "-"): text for name, text in texts.items()}
    files = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    texts["manifest.json"] = json.dumps({"version": "1.16.1", "files": files})
    with tarfile.open(path, "w") as tar:
        for name, text in texts.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


class TestBackup:
    def test_secrets_and_keys_come_with_it(self, tmp_path: Path) -> None:
        path = backup(tmp_path / "a.tar", secrets_json={"db": "x"}, app_keys_json={"chat": "app-1"})
        manifest, kept = read_backup(path)
        assert manifest["version"] == "1.16.1"
        assert kept == {"db": "x", "app_chat": "app-1"}

    def test_damage_is_noticed(self, tmp_path: Path) -> None:
        path = backup(tmp_path / "a.tar", secrets_json={"db": "x"}, other_json={"a": "b" * 600})
        path.write_bytes(path.read_bytes().replace(b"b" * 600, b"c" * 600))
        with pytest.raises(FleetError, match=r"a\.tar: other\.json is damaged"):
            read_backup(path)
        path.with_name("a.tar.sha256").write_text("0" * 64 + "  a.tar\n")
        with pytest.raises(FleetError, match=r"not what a\.tar\.sha256 says"):
            read_backup(path)

    def test_what_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_text("no archive")
        with pytest.raises(FleetError, match="no backup of Dify"):
            read_backup(tmp_path / "a.tar")
        with pytest.raises(FleetError, match="no such file"):
            read_backup(tmp_path / "b.tar")


@pytest.mark.parametrize(("declared", "told"), [(None, 4096), (6000, 6000), (65536, 8192)])
def test_dify_is_told_no_more_context_than_ollama_holds(declared: int | None, told: int) -> None:
    """Unset, Ollama holds 4096 on a small GPU."""
    data = BOX | ({"ollama_context_length": declared} if declared else {})
    fleet = fleet_of({"box": ("gpu dify", {**data, "ollama_models": ["gpt-oss:20b"]})})
    assert dify.models_of(fleet["box"], fleet)[0].context_size == told
