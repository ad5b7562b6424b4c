"""A release with our values: its files, its images, its passwords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dify_compose import Release, Tagged, image_problem, password_problem, to_yaml
from fleet.dify import declared as dify
from tests.unit.dify.dify_host import OLD, Host


def test_yaml_is_what_was_meant() -> None:
    text = to_yaml({"a": {"b": [1, "x: y"], "c": {"d": "#"}}, "e": Tagged("!reset", [])})
    assert "e: !reset []\n" in text
    assert yaml.safe_load(text.replace("!reset ", "")) == {
        "a": {"b": [1, "x: y"], "c": {"d": "#"}},
        "e": [],
    }


@pytest.mark.parametrize(
    ("image", "loose"),
    [
        ("nginx:latest", True),
        ("nginx", True),
        ("postgres:15-alpine", True),
        ("localhost:5000/nginx", True),
        ("langgenius/dify-api:1.16.1", False),
        ("langgenius/dify-plugin-daemon:0.6.10-local", False),
        ("nginx:latest@sha256:" + "ab" * 32, False),
    ],
)
def test_tags_that_move(image: str, loose: bool) -> None:
    assert (image_problem({"x": {"image": image}}) is not None) == loose


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        ({"environment": {"QDRANT_API_KEY": "difyai123456"}}, True),
        ({"environment": {"URL": "redis://:difyai123456@redis:6379/1"}}, True),
        ({"command": ["redis-server", "--requirepass", "difyai123456"]}, True),
        ({"environment": {"EMPTY": None}, "command": None}, False),
        ({"environment": {"DB_PASSWORD": "ours"}, "image": "langgenius/dify-sandbox:1"}, False),
    ],
)
def test_passwords_that_everybody_knows(service: dict[str, Any], problem: bool) -> None:
    said = password_problem({"x": {"image": "x:1.0.0"} | service}, dify.PUBLIC_DEFAULTS)
    assert (said is not None) == problem
    assert "difyai123456" not in (said or "")


def test_values_take_the_places_of_the_examples(tmp_path: Path) -> None:
    pristine = tmp_path / "opt" / "1.16.1" / "dify-1.16.1" / "docker"
    pristine.mkdir(parents=True)
    (pristine / "docker-compose.yaml").write_text("services: {}\n")
    (pristine / ".env.example").write_text("# words=\nSECRET_KEY=old\nKEEP=1\nSECRET_KEY=public\n")
    (tmp_path / "values").write_text("SECRET_KEY=new\nOURS=2\n")
    config = {
        "root": str(tmp_path / "root"),
        "pristine": str(tmp_path / "opt"),
        "values": str(tmp_path / "values"),
    }
    assert Release(config, "1.16.1").env_text() == (
        "# words=\nSECRET_KEY=new\nKEEP=1\nSECRET_KEY=new\n# Added by llm-fleet.\nOURS=2\n"
    )


def test_new_ca_makes_the_daemon_anew(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its file is replaced, and the mount of a container that runs keeps the old one.
    release = Release(host.config(OLD) | {"ca": "/etc/x.pem"}, OLD)
    seen = []
    for text in ("one CA", "another CA"):
        monkeypatch.setattr(Release, "_bundle_text", lambda _, text=text: text)
        ours = release._service_override("plugin_daemon", {"plugin_daemon": {"image": "x"}})
        seen.append(ours["environment"])
    assert seen[0] != seen[1]
