"""What the owner of a key is given can be used as it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from fleet.capabilities import CAPABILITIES
from fleet.declare.open import open_inventory
from fleet.gateway import cli
from fleet.gateway.declared import authority_certificate, gateway_keys
from fleet.kit.secrets import Making
from fleet.operate.command import Commands

KEYS = [
    "team-a",
    {"name": "ci", "rate": "120/m", "concurrent": 4, "expires": "2100-01-31",
     "allow_from": ["10.0.0.0/8"]},
    {"name": "past", "expires": "2020-01-01"},
]  # fmt: skip


def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str, **settings: Any
) -> Result:
    monkeypatch.setattr("fleet.declare.load.project_of", lambda _: tmp_path)
    models = settings.pop("ollama_models", ["gpt-oss:20b"])
    edge = {"private_address": "10.0.0.2", "gateway_keys": KEYS, **settings}
    gpu = {
        "private_address": "10.0.0.11", "ollama_listen": "private", "gpu_count": 0,
        "ollama_models": models,
    }  # fmt: skip
    # pyinfra reads a file once in a process.
    path = tmp_path / f"prod{len(list(tmp_path.glob('*.py')))}.py"
    path.write_text(f"gateway = ([('edge', {edge!r})], {{}})\ngpu = ([('gpu1', {gpu!r})], {{}})\n")
    made = open_inventory(path, CAPABILITIES)[1]
    # As a deploy does.
    made.secrets.making = Making.KEPT
    gateway_keys(made, made["edge"])
    authority_certificate(made)
    command = ["key", "handout", str(path), *arguments]
    return CliRunner().invoke(Commands(commands=[cli.key]), command, obj=CAPABILITIES)


def test_text_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(tmp_path, monkeypatch, "ci")
    assert result.exit_code == 0, result.output
    key = next((tmp_path / ".secrets").rglob("gateway_key_ci")).read_text().strip()
    for part in (
        "https://10.0.0.2:8434/v1", key, "120/m", "4 requests at the same time", "10.0.0.0/8",
        "until 2100-02-01 00:00 UTC", "-----BEGIN CERTIFICATE-----", "num_ctx",
    ):  # fmt: skip
        assert part in result.output, part
    assert "LLM_KEY=" + key in result.output


def test_authority_is_the_one_to_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """... and without one, nothing says so."""
    text = run(tmp_path, monkeypatch, "team-a").output
    pem = text[text.index("-----BEGIN") :]
    assert x509.load_pem_x509_certificate(pem.encode()).subject
    for plain in ("off", "acme"):
        more = {
            "gateway_names": ["llm.example.com"],
            "gateway_acme_email": "a@example.com",
            "gateway_http_port": 80,
        }
        settings = {"gateway_tls": plain, **({} if plain == "off" else more)}
        other = run(tmp_path, monkeypatch, "team-a", **settings)
        assert other.exit_code == 0, other.output
        assert "fleet-ca.pem" not in other.output
        assert ("nothing is encrypted" in other.output) is (plain == "off")


@pytest.mark.parametrize(("name", "said"), [("past", "has ended"), ("no", "not in gateway_keys")])
def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    result = run(tmp_path, monkeypatch, name)
    assert result.exit_code == 2
    assert said in result.output
    assert "sk-" not in result.output


def test_json_and_its_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each program is one for its interpreter; the lab's tests run them."""
    found = json.loads(run(tmp_path, monkeypatch, "team-a", "--json").output)
    assert found.keys() == {
        "schema", "name", "url", "key", "models", "authority", "limits", "snippets",
    }  # fmt: skip
    assert found["schema"] == "fleet-key-handout/1"
    snippets = found["snippets"]
    subprocess.run(["bash", "-n"], input=snippets["curl"], text=True, check=True)
    for name in ("python_openai", "python_ollama"):
        compile(snippets[name], name, "exec")
    page = Path("docs/operating/gateway.md").read_text()
    assert [key for key in found if f"`{key}`" not in page] == []
    assert [key for key in snippets if f"`{key}`" not in page] == []


def test_model_that_the_host_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = run(tmp_path, monkeypatch, "team-a", ollama_models=["auto"]).output
    assert 'model="auto"' in text
    assert "auto is gpt-oss:20b or gpt-oss:120b, whichever the host has that answers" in text
