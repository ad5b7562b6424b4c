"""In which words an operator is told what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.capabilities import CAPABILITIES
from tests.fleets import (
    Hosts,
)
from tests.unit.refusals import assert_refused, pair, problems

# id: (the fleet, whose host, what the one line must hold: key, value, fix)
REFUSED: dict[str, tuple[Hosts, str, list[str]]] = {
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
    "no model is right": (
        pair({"ollama_models": ["gpt oss"]}),
        "gpu1",
        ["ollama_models[0] = 'gpt oss'"],
    ),
}


@pytest.mark.parametrize(("hosts", "host", "parts"), REFUSED.values(), ids=REFUSED)
def test_refused(hosts: Hosts, host: str, parts: list[str], own_secrets: Path) -> None:
    assert_refused(hosts, host, parts, own_secrets)


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


def test_no_regular_expression_in_a_refusal() -> None:
    """Every setting that is text refuses a line break, in words."""
    hosts = {
        "gpu1": (
            "gpu gateway dify webui",
            {
                model.key(name): ["\n"] if "tuple" in str(field.annotation) else "\n"
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
