"""What of Open WebUI is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fleet.declare.load
from fleet.kit.errors import SettingsError
from tests.alternatives.webui import LEAST
from tests.fleets import EDGE, GPU, fleet_of

PAGE = {"private_address": "10.0.0.6", **LEAST}
KEYS = {"gateway_keys": ["webui", {"name": "ops", "role": "admin"}]}


def refusals(edge: dict[str, Any] | None = None, **data: Any) -> str:
    """What is refused of a host that differs from a sound one by `data`; None takes a key out."""
    declared = {key: value for key, value in (PAGE | data).items() if value is not None}
    gateway = (EDGE[0], {**EDGE[1], **(KEYS if edge is None else edge)})
    with pytest.raises(SettingsError) as caught:
        fleet_of({"gpu1": GPU, "edge": gateway, "page": ("webui", declared)})
    return str(caught.value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"webui_image": None}, ["page: webui_image is missing", "@sha256:"]),
        ({"webui_image": "ghcr.io/open-webui/open-webui:v0.9.6"}, ["page: webui_image"]),
        ({"webui_admin_email": None}, ["page: webui_admin_email is missing"]),
        (
            {"webui_listen": "private"},
            ["page: webui_listen = 'private' without webui_allow_from", "name at least one"],
        ),
        (
            {"webui_listen": "private", "webui_allow_from": ["10.0.0.0/8"],
             "private_address": None},
            ["page: webui_listen = 'private' needs private_address"],
        ),
        ({"webui_allow_from": ["10.0.0.0/8"]}, ["page: webui_allow_from", "webui_listen"]),
        (
            {"webui_gateway_key": "chat"},
            ["page: webui_gateway_key = 'chat' is not in gateway_keys of edge", "add 'chat'"],
        ),
        ({"webui_gateway_key": "ops"}, ["page: webui_gateway_key = 'ops' is an admin key"]),
        ({"webui_env": {"ENABLE_SIGNUP": "True"}}, ["page: webui_env: ENABLE_SIGNUP is set by"]),
        ({"webui_env": {"BING_API_KEY": "x"}}, ["page: webui_env: BING_API_KEY looks like a"]),
        ({"webui_port": 22}, ["page: ssh_port and webui_port are all 22"]),
    ],
)  # fmt: skip
def test_refused(data: dict[str, Any], words: list[str]) -> None:
    text = refusals(**data)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("edge", "words"),
    [
        (
            {"gateway_keys": [{"name": "webui", "allow_from": ["10.0.0.7/32", "fd00::/8"]}]},
            ["page: webui_gateway_key = 'webui'", "an allow_from without 10.0.0.6", "add it there"],
        ),
        (
            {**KEYS, "gateway_allow_from": ["10.1.0.0/16"]},
            ["edge: gateway_allow_from = ['10.1.0.0/16']", "drop the calls of page",
             "add '10.0.0.6' or its network"],
        ),
        (
            {"gateway_keys": ["a", {"name": "webui", "expires": "2024-06-30"}]},
            ["page: webui_gateway_key = 'webui'", "ended at 2024-07-01 00:00 UTC"],
        ),
    ],
    ids=["from elsewhere", "firewall", "ended"],
)  # fmt: skip
def test_gateway_turns_it_away(edge: dict[str, Any], words: list[str]) -> None:
    text = refusals(edge)
    assert all(word in text for word in words), text
    assert text.count("\n  - ") == 1


NARROW = {"gateway_allow_from": ["10.1.0.0/16"]}


@pytest.mark.parametrize(
    ("edge", "page"),
    [
        ({**NARROW, "gateway_allow_from": ["10.0.0.6/32"]}, {}),
        ({**NARROW, "firewall_backend": "none"}, {}),
        ({**NARROW, "gateway_listen": "any"}, {}),
        (NARROW, {"private_address": None}),
        (NARROW, {"private_address": "fd00::6"}),
    ],
    ids=["let in", "others filter", "public address", "address unknown", "two families"],
)
def test_not_refused_for_what_may_work(edge: dict[str, Any], page: dict[str, Any]) -> None:
    data = {key: value for key, value in (PAGE | page).items() if value is not None}
    gateway = (EDGE[0], {**EDGE[1], **KEYS, **edge})
    fleet_of({"gpu1": GPU, "edge": gateway, "page": ("webui", data)})


def test_on_the_gateway_itself_the_firewall_lets_it_in() -> None:
    data = {**PAGE, **KEYS, **NARROW, "ollama_listen": "private"}
    fleet_of({"box": ("gpu gateway webui", data)})


def test_door_that_nobody_else_reaches() -> None:
    text = refusals({**KEYS, "gateway_listen": "loopback"})
    assert "page: Open WebUI asks the fleet's gateway, but no gateway" in text
    assert "gateway_listen = 'private'" in text


def test_secret_that_an_environment_file_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet.declare.load, "project_of", lambda _: tmp_path)
    store = tmp_path / ".secrets" / "default"
    store.mkdir(parents=True)
    (store / "webui_page_admin_password").write_text("short")
    (store / "webui_page_admin_password").chmod(0o600)
    text = refusals()
    assert "page: " in text
    assert "webui_page_admin_password is not 16 to 72 characters" in text
