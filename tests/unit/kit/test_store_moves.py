"""Secrets moved from store to store, and what is left when that is cut short anywhere."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import pyrage
import pytest
from typing_extensions import override

from fleet.kit.errors import FleetError
from fleet.kit.storage import AgeFiles, FromCommand, PlainFiles, Storage
from fleet.kit.store_moves import move, set_up_age, set_up_command

VALUES = {"a": "one", "b": "two\nlines", "gateway_tls_fd00::1_key": "three"}


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch) -> str:
    identity = pyrage.x25519.Identity.generate()
    monkeypatch.setenv("FLEET_AGE_KEY", str(identity))
    return str(identity.to_public())


@pytest.fixture
def plain(tmp_path: Path) -> PlainFiles:
    store = PlainFiles(tmp_path / ".secrets" / "prod")
    for name, value in VALUES.items():
        store.write(name, value)
    return store


def values_of(*stores: Storage) -> dict[str, str | None]:
    return {name: store.read(name) for store in stores for name in store.names()}


def test_there_and_back(plain: PlainFiles, mine: str, tmp_path: Path) -> None:
    age = AgeFiles(tmp_path / "secrets" / "prod.age")
    set_up_age(age, [mine])
    assert move(plain, age) == (3, ())
    assert values_of(age) == VALUES
    assert not plain.root.exists()
    assert move(age, plain) == (3, ())
    assert values_of(plain) == VALUES
    assert not age.root.exists()


def _cut_short(at: int, plain: Path, age: Path, recipient: str) -> None:
    """Move, and be killed at the change number `at` of the disk; ends with 0 when there are less.

    Nothing cleans up after it: `os._exit` is as sudden as SIGKILL.
    """
    changes = iter(range(1, 10_000))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
        if (
            is_write or event in {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}
        ) and (next(changes) == at):
            os._exit(9)

    sys.addaudithook(hook)
    set_up_age(AgeFiles(age), [recipient])
    move(PlainFiles(plain), AgeFiles(age))
    os._exit(0)


def test_killed_at_every_change_nothing_is_lost(
    plain: PlainFiles, mine: str, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    age = AgeFiles(tmp_path / "secrets" / "prod.age")
    for at in range(1, 100):
        process = context.Process(target=_cut_short, args=(at, plain.root, age.root, mine))
        process.start()
        process.join(30)
        assert process.exitcode in {0, 9}
        left = [store for store in (plain, age) if store.names()]
        assert values_of(*left) == VALUES, at
        # Again, undisturbed: it finishes.
        set_up_age(age, [mine])
        move(plain, age)
        assert values_of(age) == VALUES
        assert not plain.root.exists()
        assert not [path for path in age.root.iterdir() if b"two\nlines" in path.read_bytes()]
        if process.exitcode == 0:
            break
        move(age, plain)
    assert at > 10


def test_other_value_on_both_sides_is_kept_on_both(
    plain: PlainFiles, mine: str, tmp_path: Path
) -> None:
    age = AgeFiles(tmp_path / "secrets" / "prod.age")
    set_up_age(age, [mine])
    age.write("b", "another")
    with pytest.raises(FleetError, match=r"^b: in .* with different values") as refused:
        move(plain, age)
    assert "another" not in str(refused.value)
    assert values_of(plain) == VALUES
    assert age.read("b") == "another"


class Late(PlainFiles):
    """While it is moved to, something else comes into where the secrets come from."""

    def comes(self, path: Path, text: str) -> None:
        self._late = (path, text)

    @override
    def keep(self, name: str, value: str) -> str:
        path, text = self._late
        path.write_text(text)
        path.chmod(0o600)
        return super().keep(name, value)


@pytest.mark.parametrize("name", ["late", "NOTES about keys", ".late.ab12cd_x"])
def test_what_was_not_moved_stays_and_is_named(plain: PlainFiles, name: str) -> None:
    """... be it a secret, which is moved by the next try, or no secret at all."""
    target = Late(plain.root.parent / "other")
    target.comes(plain.root / name, "four")
    assert move(plain, target) == (3, (plain.root / name,))
    assert (plain.root / name).read_text() == "four"
    assert values_of(target) == VALUES
    if name == "late":
        assert move(plain, target) == (1, ())
        assert values_of(target) == VALUES | {"late": "four"}


def test_recipients_stay_as_long_as_a_secret_does(
    plain: PlainFiles, mine: str, tmp_path: Path
) -> None:
    age = AgeFiles(tmp_path / "secrets" / "prod.age")
    set_up_age(age, [mine])
    move(plain, age)
    target = Late(tmp_path / "other")
    target.comes(age.place("late"), "four")
    assert move(age, target).left == (age.place("late"), age.recipients)
    age.place("late").unlink()
    (age.root / "README").write_text("whose these are\n")
    assert move(age, target) == (0, (age.root / "README",))


def test_what_a_killed_run_left_of_a_secret_goes(plain: PlainFiles) -> None:
    (plain.root / ".a.ab12cd_x").write_text("one")
    assert move(plain, PlainFiles(plain.root.parent / "other")) == (3, ())
    assert not plain.root.exists()


def test_recipients_that_are_not_mine_are_refused(mine: str, tmp_path: Path) -> None:
    other = str(pyrage.x25519.Identity.generate().to_public())
    age = AgeFiles(tmp_path / "secrets" / "prod.age")
    with pytest.raises(FleetError, match="cannot be decrypted with FLEET_AGE_KEY"):
        set_up_age(age, [other])
    assert not age.root.exists()
    set_up_age(age, [other, mine])
    with pytest.raises(FleetError, match=r"recipients\.txt: this store is there already"):
        set_up_age(age, [mine])


class TestCommand:
    """It has to give what was there before."""

    def test_all_of_it(self, plain: PlainFiles, tmp_path: Path) -> None:
        store = FromCommand(tmp_path / "secrets" / "prod.command", tmp_path)
        (tmp_path / "given.json").write_text('{"a": "one"}')
        with pytest.raises(FleetError, match=r"gives b, gateway_tls_fd00::1_key otherwise than"):
            set_up_command(store, "cat given.json", [plain])
        assert not store.root.exists()
        (tmp_path / "given.json").write_text(
            '{"a": "one", "b": "two\\nlines\\n", "gateway_tls_fd00::1_key": "three"}'
        )
        set_up_command(store, "cat given.json", [plain])
        assert move(plain, store) == (3, ())
        assert values_of(store) == VALUES
        assert not plain.root.exists()
        with pytest.raises(FleetError, match="another command is declared already"):
            set_up_command(store, "cat other.json", [])
