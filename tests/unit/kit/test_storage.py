"""Stores on a real disk: encrypted ones, and those that a command fills."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from fleet.kit.errors import FleetError
from fleet.kit.secrets import Making, SecretStore
from fleet.kit.storage import AgeFiles, FromCommand, PlainFiles, from_json

Identity = pyrage.x25519.Identity


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The recipient that this operator is; no identity of the machine counts."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FLEET_AGE_KEY_FILE", raising=False)
    return become(monkeypatch)


def become(monkeypatch: pytest.MonkeyPatch) -> str:
    identity = Identity.generate()
    monkeypatch.setenv("FLEET_AGE_KEY", str(identity))
    return str(identity.to_public())


def encrypted_store(root: Path, *recipients: str) -> AgeFiles:
    root.mkdir(parents=True, exist_ok=True)
    (root / "recipients.txt").write_text("# us\n" + "".join(f"{item}\n" for item in recipients))
    return AgeFiles(root)


class TestAge:
    """Files that are committed."""

    def test_secrets_are_made_and_kept_as_ever(self, mine: str, tmp_path: Path) -> None:
        root = tmp_path / "secrets" / "prod.age"
        store = SecretStore(root, encrypted_store(root, mine))
        value = store.api_key("a").get_secret_value()
        again = SecretStore(root, AgeFiles(root))
        assert again.api_key("a").get_secret_value() == value
        assert again.read("b") is None
        assert again.kept.names() == ("a",)
        assert {path.name for path in root.iterdir()} == {"recipients.txt", "a.age"}
        assert value.encode() not in (root / "a.age").read_bytes()
        assert (root / "a.age").read_text().startswith("-----BEGIN AGE ENCRYPTED FILE-----\n")

    def test_whoever_is_no_recipient_is_told_what_to_do(
        self, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = encrypted_store(tmp_path / "prod.age", mine)
        store.write("a", "hello-hello-hello")
        become(monkeypatch)
        with pytest.raises(FleetError, match=r"a\.age: cannot be decrypted with FLEET_AGE_KEY"):
            AgeFiles(store.root).read("a")
        monkeypatch.delenv("FLEET_AGE_KEY")
        with pytest.raises(FleetError, match="nothing to decrypt it with; set FLEET_AGE_KEY_FILE"):
            AgeFiles(store.root).read("a")

    def test_rekeyed_to_who_is_there_now(
        self, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = encrypted_store(tmp_path / "prod.age", mine)
        store.write("a", "one")
        store.write("b", "two")
        mallory = os.environ["FLEET_AGE_KEY"]
        second = Identity.generate()
        encrypted_store(store.root, str(second.to_public()))
        assert store.rekey() == 2
        with pytest.raises(FleetError, match="cannot be decrypted"):
            AgeFiles(store.root).read("a")
        monkeypatch.setenv("FLEET_AGE_KEY", str(second))
        assert [AgeFiles(store.root).read(name) for name in "ab"] == ["one", "two"]
        assert mallory not in str(second)

    @pytest.mark.parametrize(
        ("lines", "why"),
        [
            ("", "no recipient; nobody could decrypt"),
            ("# only a comment\n", "no recipient; nobody could decrypt"),
            ("age1nothing\n", r"recipients\.txt:1: 'age1nothing': no recipient"),
            ("\nssh-ed25519 AAAA\n", r"recipients\.txt:2: 'ssh-ed25519 AAAA': no recipient"),
            ("AGE-SECRET-KEY-1QQQ\n", r"recipients\.txt:1: this is a private key"),
        ],
    )
    def test_nothing_is_written_for_wrong_recipients(
        self, lines: str, why: str, mine: str, tmp_path: Path
    ) -> None:
        store = encrypted_store(tmp_path / "prod.age", mine)
        store.recipients.write_text(lines)
        with pytest.raises(FleetError, match=why) as refused:
            store.keep("a", "hello-hello-hello")
        assert "QQQ" not in str(refused.value)
        assert [path.name for path in store.root.iterdir()] == ["recipients.txt"]

    def test_ssh_key(self, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        key = tmp_path / "id"
        ssh_keygen(key, "")
        store = encrypted_store(tmp_path / "prod.age", key.with_suffix(".pub").read_text().strip())
        store.write("a", "hello")
        monkeypatch.delenv("FLEET_AGE_KEY")
        monkeypatch.setenv("FLEET_AGE_KEY_FILE", str(key))
        assert AgeFiles(store.root).read("a") == "hello"

    @pytest.mark.parametrize("content", ["", "# made by nobody\n", "AGE-SECRET-KEY-1QQQ\n"])
    def test_identity_that_is_none(
        self, content: str, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = encrypted_store(tmp_path / "prod.age", mine)
        store.write("a", "hello")
        monkeypatch.delenv("FLEET_AGE_KEY")
        (tmp_path / "mine.txt").write_text(content)
        monkeypatch.setenv("FLEET_AGE_KEY_FILE", str(tmp_path / "mine.txt"))
        with pytest.raises(FleetError, match=r"mine\.txt: no identity") as refused:
            AgeFiles(store.root).read("a")
        assert "QQQ" not in str(refused.value)

    def test_ssh_key_with_a_passphrase_is_left_out_and_said(
        self, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = encrypted_store(tmp_path / "prod.age", mine)
        store.write("a", "hello")
        usual = tmp_path / "home" / ".ssh" / "id_ed25519"
        usual.parent.mkdir(parents=True)
        ssh_keygen(usual, "a passphrase")
        monkeypatch.delenv("FLEET_AGE_KEY")
        with pytest.raises(FleetError, match=r"nothing to decrypt .*left out: .*id_ed25519: no "):
            AgeFiles(store.root).read("a")

    def test_not_encrypted_file_is_refused(self, mine: str, tmp_path: Path) -> None:
        store = encrypted_store(tmp_path / "prod.age", mine)
        (store.root / "a.age").write_text("in the clear\n")
        with pytest.raises(FleetError, match="cannot be decrypted") as refused:
            store.read("a")
        assert "in the clear" not in str(refused.value)


def ssh_keygen(path: Path, passphrase: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", path], check=True)


def _write_many(root: Path, mark: str) -> None:
    store = SecretStore(root)
    for number in range(30):
        store.replace("a", f"{mark}{number}")


def test_two_operators_at_once_leave_one_whole_value(tmp_path: Path) -> None:
    root = tmp_path / "prod"
    SecretStore(root).replace("a", "first")
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(root, mark)) for mark in "xy"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert SecretStore(root).kept.read("a") in {"x29", "y29"}
    assert [path.name for path in root.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "change",
    [lambda store: store.write("a", "two"), lambda store: store.keep("b", "two")],
    ids=["write", "keep"],
)
def test_a_change_waits_for_another_and_then_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[PlainFiles], object]
) -> None:
    monkeypatch.setattr("fleet.kit.storage._WAIT", 0.2)
    store, other = PlainFiles(tmp_path / "prod"), PlainFiles(tmp_path / "prod")
    store.write("a", "one")
    with (
        other.locked(),
        pytest.raises(FleetError, match="another command has been changing these secrets"),
    ):
        change(store)
    assert (other.names(), other.read("a")) == (("a",), "one")
    store.write("a", "three")
    assert other.read("a") == "three"


def test_who_waited_until_the_secrets_were_moved_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it made would count no more."""
    store = PlainFiles(tmp_path / "prod")
    store.write("a", "one")

    def wait(self: PlainFiles, descriptor: int) -> None:
        (self.root / "a").unlink()
        self.root.rmdir()

    monkeypatch.setattr(PlainFiles, "_wait_for", wait)
    with pytest.raises(FleetError, match="another command has moved these secrets meanwhile"):
        store.keep("b", "two")
    assert not store.root.exists()


class TestCommand:
    """Read only: a vault's, sops', a pipeline's."""

    def store(self, tmp_path: Path, command: str) -> FromCommand:
        root = tmp_path / "secrets" / "prod.command"
        root.parent.mkdir(exist_ok=True)
        root.write_text(f"{command}\n")
        return FromCommand(root, tmp_path)

    def test_asked_once_in_the_project(self, tmp_path: Path) -> None:
        (tmp_path / "values.json").write_text(json.dumps({"a": "one\n", "b": "two"}))
        store = self.store(tmp_path, "echo x >> asked; cat values.json")
        assert store.names() == ("a", "b")
        assert [store.read(name) for name in "abc"] == ["one", "two", None]
        assert (tmp_path / "asked").read_text() == "x\n"

    def test_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FLEET_SECRETS", '{"a": "one"}')
        assert self.store(tmp_path, "printenv FLEET_SECRETS").read("a") == "one"
        monkeypatch.delenv("FLEET_SECRETS")
        with pytest.raises(FleetError, match=r"prod\.command: the command ended with 1: it said"):
            self.store(tmp_path, "printenv FLEET_SECRETS").read("a")

    @pytest.mark.parametrize(
        ("command", "why"),
        [
            ("echo no token >&2; exit 3", "ended with 3: no token"),
            ("no-such-program-here", "ended with 127"),
            ("echo sk-secret", "is not a JSON object"),
            ("echo '[\"sk-secret\"]'", "is not a JSON object"),
            ("echo '{\"a\": 5}'", "has 'a', whose value is empty or no text"),
            ('echo \'{"a": "sk-secret", "b": ""}\'', "has 'b', whose value is empty or no text"),
            ('echo \'{"../a": "sk-secret"}\'', "has '../a', which is no secret's name"),
            ("", "no command; write one"),
        ],
    )
    def test_answer_that_is_none(self, command: str, why: str, tmp_path: Path) -> None:
        with pytest.raises(FleetError, match=why) as refused:
            self.store(tmp_path, command).read("a")
        assert "sk-secret" not in str(refused.value)

    def test_nothing_is_kept(self, tmp_path: Path) -> None:
        store = SecretStore(tmp_path, self.store(tmp_path, "echo '{}'"))
        for making in (Making.KEPT, Making.IMAGINED):
            store.making = making
            with pytest.raises(FleetError, match=r"store_id: .*prod\.command says that a command"):
                store.api_key("store_id")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", ".hidden", "a b", "a\n"])
def test_name_that_would_be_another_file(name: str) -> None:
    with pytest.raises(FleetError, match="no secret's name"):
        from_json(json.dumps({name: "value"}), "it")
