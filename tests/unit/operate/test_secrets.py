"""`fleet secrets`, as an operator types it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyrage
import pytest
from click.testing import CliRunner, Result

from fleet import cli
from fleet.capabilities import CAPABILITIES
from fleet.declare.open import open_inventory
from fleet.declare.stores import open_store
from fleet.gateway.declared import trust_of
from fleet.kit.secrets import Making

INVENTORY = "inventory/prod.py"
VALUE = f"sk-{'0123abcd' * 8}"


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> str:
    identity = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("FLEET_AGE_KEY", str(identity))
    return str(identity.to_public())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An operator's directory, with one inventory and two secrets, and in it this process."""
    monkeypatch.undo()
    root = tmp_path / "site"
    (root / "inventory").mkdir(parents=True)
    (root / INVENTORY).write_text(
        'gpu = gateway = [("box", {"private_address": "10.0.0.5", "gateway_keys": ["team-a"], '
        '"gateway_tls": "private-ca"})]\n'
    )
    (root / "config.py").write_text("import llm_fleet\n")
    (root / "deploy.py").write_text("import llm_fleet\n")
    store = root / ".secrets" / "prod"
    store.mkdir(parents=True, mode=0o700)
    for name in ("gateway_key_team-a", "store_id"):
        (store / name).write_text(f"{VALUE}\n")
        (store / name).chmod(0o600)
    monkeypatch.chdir(root)
    return root


def fleet(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(cli.main, ["secrets", *words], input=given)


def test_what_is_no_secret_is_left_and_named(project: Path, mine: str) -> None:
    note = project / ".secrets" / "prod" / "who has a copy"
    note.write_text("nobody")
    result = fleet("init", INVENTORY, "--age", mine)
    assert f"{note}: not moved, and left there" in result.stderr
    assert note.read_text() == "nobody"
    result = fleet("list", INVENTORY)
    assert result.stdout.splitlines() == ["gateway_key_team-a", "store_id"]


def test_encrypted_and_still_the_same(project: Path, mine: str) -> None:
    result = fleet("init", INVENTORY, "--age", mine)
    assert result.exit_code == 0, result.output
    assert "2 secrets moved there" in result.output
    assert not (project / ".secrets" / "prod").exists()
    store = open_store(project / INVENTORY, project)
    value = store.read("gateway_key_team-a")
    assert value is not None
    assert value.get_secret_value() == VALUE
    assert store.name == "prod"
    listed = fleet("list", INVENTORY)
    assert listed.stdout.splitlines() == ["gateway_key_team-a", "store_id"]
    assert json.loads(fleet("list", INVENTORY, "--json").stdout) == {
        "schema": "fleet-secrets-list/1",
        "kind": "files encrypted with age",
        "place": str(project / "secrets" / "prod.age"),
        "names": ["gateway_key_team-a", "store_id"],
    }
    files = (project / "secrets" / "prod.age").iterdir()
    assert [path for path in files if b"0123abcd" in path.read_bytes()] == []


def test_inventory_opens_with_encrypted_secrets(project: Path, mine: str) -> None:
    """... and trusts the authority that is in them."""
    fleet("init", INVENTORY, "--age", mine)
    opened = open_inventory(project / INVENTORY, CAPABILITIES)[1]
    assert opened.root == project
    assert opened.secrets.root == project / "secrets" / "prod.age"
    opened.secrets.making = Making.KEPT
    trust = trust_of(opened, opened["box"])
    assert isinstance(trust, str)
    assert Path(trust).read_text().startswith("-----BEGIN CERTIFICATE-----")


def test_while_there_are_two_none_counts(project: Path, mine: str) -> None:
    fleet("init", INVENTORY, "--age", mine)
    (project / ".secrets" / "prod").mkdir(mode=0o700)
    (project / ".secrets" / "prod" / "store_id").write_text("sk-another\n")
    (project / ".secrets" / "prod" / "store_id").chmod(0o600)
    result = CliRunner().invoke(cli.main, ["check", INVENTORY])
    assert result.exit_code == 1
    assert "its secrets are in" in result.output
    assert "only one can count" in result.output
    result = fleet("init", INVENTORY, "--age", mine)
    assert result.exit_code == 2
    assert "store_id: in" in result.output
    assert "sk-another" not in result.output


def test_without_an_identity_it_is_a_sentence(
    project: Path, mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet("init", INVENTORY, "--age", mine)
    monkeypatch.setenv("FLEET_AGE_KEY", str(pyrage.x25519.Identity.generate()))
    result = CliRunner().invoke(cli.main, ["check", INVENTORY])
    assert result.exit_code == 1
    assert "gateway_key_team-a.age: cannot be decrypted with FLEET_AGE_KEY" in result.output
    assert os.environ["FLEET_AGE_KEY"] not in result.output


def test_out_to_json_and_in_again(project: Path) -> None:
    exported = fleet("export", INVENTORY)
    assert exported.exit_code == 0
    values = json.loads(exported.stdout)
    assert sorted(values) == ["gateway_key_team-a", "store_id"]
    assert json.loads(fleet("export", INVENTORY, "store_id").stdout) == {
        "store_id": values["store_id"]
    }
    assert "no secret called nothing" in fleet("export", INVENTORY, "nothing").output
    result = fleet("import", INVENTORY, given=json.dumps({**values, "new": "value\n"}))
    assert (result.exit_code, "1 of 3 secrets written" in result.output) == (0, True)
    assert (project / ".secrets" / "prod" / "new").read_text() == "value\n"


def test_import_changes_nothing_unless_that_is_meant(project: Path) -> None:
    given = json.dumps({"store_id": "sk-another", "new": "value"})
    result = fleet("import", INVENTORY, given=given)
    assert result.exit_code == 2
    assert "store_id: there with another value; nothing was written" in result.output
    assert not (project / ".secrets" / "prod" / "new").exists()
    result = fleet("import", INVENTORY, "--replace", given=given)
    assert result.exit_code == 0
    assert (project / ".secrets" / "prod" / "store_id").read_text() == "sk-another\n"
    assert "sk-another" not in result.output


@pytest.mark.parametrize("given", ["", "{", "[]", '{"a": 1}', '{"../a": "x"}', '{"a": " "}'])
def test_import_of_what_is_no_secret(project: Path, given: str) -> None:
    before = sorted((project / ".secrets" / "prod").iterdir())
    assert fleet("import", INVENTORY, given=given).exit_code == 2
    assert sorted((project / ".secrets" / "prod").iterdir()) == before


def test_pipeline_gives_them_by_the_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_SECRETS", fleet("export", INVENTORY).stdout)
    result = fleet("init", INVENTORY, "--command", "printenv FLEET_SECRETS")
    assert result.exit_code == 0, result.output
    assert (project / "secrets" / "prod.command").read_text() == "printenv FLEET_SECRETS\n"
    assert fleet("list", INVENTORY).stdout.splitlines() == ["gateway_key_team-a", "store_id"]
    assert "nothing is encrypted there" in fleet("rekey", INVENTORY).output
    monkeypatch.delenv("FLEET_SECRETS")
    result = CliRunner().invoke(cli.main, ["check", INVENTORY])
    assert result.exit_code == 1
    assert "prod.command: the command ended with 1" in result.output
    # Nothing took its place.
    assert not (project / ".secrets" / "prod").exists()


def test_rekey_says_what_it_did(project: Path, mine: str) -> None:
    fleet("init", INVENTORY, "--age", mine)
    other = str(pyrage.x25519.Identity.generate().to_public())
    with (project / "secrets" / "prod.age" / "recipients.txt").open("a") as file:
        file.write(f"{other}\n")
    result = fleet("rekey", INVENTORY)
    assert result.exit_code == 0
    assert "2 secrets encrypted to 2 recipients" in result.output


@pytest.mark.parametrize("words", [[], ["--plain", "--command", "x"]])
def test_one_kind_is_said(project: Path, words: list[str]) -> None:
    result = fleet("init", INVENTORY, *words)
    assert result.exit_code == 2
    assert "say one of --age, --command and --plain" in result.output


def test_no_such_inventory(project: Path) -> None:
    for command in (["list"], ["init", "--plain"], ["export"], ["rekey"]):
        result = fleet(command[0], "inventory/prd.py", *command[1:])
        assert result.exit_code == 2
        assert "inventory/prd.py: no such inventory file" in result.output
