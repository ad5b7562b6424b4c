"""The secrets store on a real disk."""

from __future__ import annotations

import multiprocessing
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from pydantic import SecretStr

from fleet.kit import secrets
from fleet.kit.errors import FleetError
from fleet.kit.secrets import EXAMPLE_KEY, Making, SecretStore, imagined

FORM = re.compile(r"sk-[0-9a-f]{64}")


@pytest.fixture(autouse=True)
def nothing_imagined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_IMAGINED", {})


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / ".secrets" / "prod")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_generated_once_and_kept(store: SecretStore) -> None:
    first = store.api_key("a").get_secret_value()
    assert FORM.fullmatch(first)
    assert SecretStore(store.root).api_key("a").get_secret_value() == first


def test_each_name_has_a_value_of_its_own(store: SecretStore) -> None:
    assert store.api_key("a") != store.api_key("b")


def test_nobody_else_can_read_it(store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.api_key("a")
    assert mode(store.path("a")) == 0o600
    assert mode(store.root) == 0o700


def test_nothing_else_is_left_in_the_store(store: SecretStore) -> None:
    store.api_key("a")
    assert list(store.root.iterdir()) == [store.path("a")]


def test_missing_is_not_generated_by_reading(store: SecretStore) -> None:
    assert store.read("a") is None
    assert not store.root.exists()


def test_value_is_not_shown(store: SecretStore) -> None:
    key = store.api_key("a")
    assert key.get_secret_value() not in f"{key} {key!r} {[key]}"


def test_whoever_may_make_none_is_told(store: SecretStore) -> None:
    """A fresh clone once printed a key that no gateway knew."""
    store.making = Making.REFUSED
    with pytest.raises(FleetError, match="deploy first, or copy the store that the gateways") as no:
        store.api_key("a")
    assert str(no.value).startswith(f"{store.path('a')}: ")
    assert store.renew("a", lambda: "other") is None
    assert not store.root.exists()


def test_dry_run_has_something_in_its_place(store: SecretStore) -> None:
    store.api_key("kept")
    store.making = Making.IMAGINED
    before = {path: path.read_text() for path in store.root.iterdir()}
    value = store.api_key("a")
    assert FORM.fullmatch(value.get_secret_value())
    # The same for all who ask, in another store of the same fleet too.
    other = SecretStore(store.root)
    other.making = Making.IMAGINED
    assert other.api_key("a") == value
    assert store.renew("kept", lambda: "renewed") == SecretStr("renewed")
    assert store.text("kept", str) == SecretStr("renewed")
    assert imagined() == {store.root: ("a", "kept")}
    assert {path: path.read_text() for path in store.root.iterdir()} == before


class TestPlanned:
    """A deploy that asks before it begins, and may be declined."""

    @pytest.fixture(autouse=True)
    def store(self, store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> SecretStore:
        monkeypatch.setattr(secrets, "_PLANNED", {})
        store.api_key("kept")
        store.making = Making.PLANNED
        return store

    def test_a_plan_that_is_declined_leaves_none(self, store: SecretStore) -> None:
        before = {path: path.read_text() for path in store.root.iterdir()}
        assert store.api_key("a") == store.api_key("a")
        store.renew("kept", lambda: "renewed")
        assert {path: path.read_text() for path in store.root.iterdir()} == before
        assert imagined() == {store.root: ("a", "kept")}

    def test_what_was_planned_is_what_is_kept(self, store: SecretStore) -> None:
        value = store.api_key("a")
        store.renew("kept", lambda: "renewed")
        secrets.keep_planned()
        secrets.keep_planned()
        assert SecretStore(store.root).read("a") == value
        assert SecretStore(store.root).read("kept") == SecretStr("renewed")
        assert imagined() == {}
        assert store.api_key("later") == SecretStore(store.root).read("later")

    def test_another_run_was_first(self, store: SecretStore) -> None:
        store.api_key("a")
        other = SecretStore(store.root).api_key("a")
        with pytest.raises(FleetError, match="another run has made this secret") as refused:
            secrets.keep_planned()
        assert other.get_secret_value() not in str(refused.value)
        assert SecretStore(store.root).read("a") == other


@pytest.mark.parametrize(
    ("deploys", "says", "making"),
    [
        (False, None, Making.REFUSED),
        (False, secrets.only_look, Making.REFUSED),
        (False, secrets.ask_first, Making.REFUSED),
        (True, None, Making.KEPT),
        (True, secrets.only_look, Making.IMAGINED),
        (True, secrets.ask_first, Making.PLANNED),
    ],
)
def test_who_may_make_one(
    deploys: bool, says: Callable[[], None] | None, making: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "_LOOKING", [])
    monkeypatch.setattr(secrets, "_ASKING", [])
    if says:
        says()
    assert secrets.making_of(deploys=deploys) is making


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o644])
def test_refused_when_others_have_access(store: SecretStore, bits: int) -> None:
    value = store.api_key("a").get_secret_value()
    store.path("a").chmod(bits)
    with pytest.raises(FleetError, match=f"chmod 600 {store.path('a')}") as refused:
        store.api_key("a")
    assert value not in str(refused.value)


@pytest.mark.parametrize("content", ["", "\n", "  \n"])
def test_refused_when_empty(store: SecretStore, content: str) -> None:
    store.api_key("a")
    store.path("a").write_text(content)
    with pytest.raises(FleetError, match="empty secret; delete the file to have one generated"):
        store.api_key("a")


def test_example_key_has_the_form_of_a_real_one() -> None:
    """... so it would be let in, were it not refused by its value."""
    assert FORM.fullmatch(EXAMPLE_KEY)


def _race(root: Path, barrier: Barrier, values: multiprocessing.Queue[str]) -> None:
    barrier.wait()
    values.put(SecretStore(root).api_key("a").get_secret_value())


def test_racing_deploys_get_one_value(store: SecretStore) -> None:
    """Whoever comes second takes the first's value; also when both saw none (20 rounds)."""
    context = multiprocessing.get_context("fork")
    for round_ in range(20):
        root = store.root / str(round_)
        barrier, values = context.Barrier(2), context.Queue()
        racers = [context.Process(target=_race, args=(root, barrier, values)) for _ in "ab"]
        for racer in racers:
            racer.start()
        seen = {values.get(timeout=10) for _ in racers}
        for racer in racers:
            racer.join(10)
        assert seen == {(root / "a").read_text().strip()}


def test_second_writer_takes_the_first_value(
    store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race's worst moment, on purpose: the file appears after it was found missing."""
    first = SecretStore(store.root).api_key("a").get_secret_value()
    read, calls = store.read, iter([True])
    monkeypatch.setattr(store, "read", lambda name: None if next(calls, False) else read(name))
    assert store.api_key("a").get_secret_value() == first
    assert list(store.root.iterdir()) == [store.path("a")]


class TestRotation:
    """Two values of one key, until a date."""

    def test_both_values_are_kept(self, store: SecretStore) -> None:
        first = store.api_key("a")
        until = datetime.now(UTC) + timedelta(days=7)
        second = store.rotate("a", until)
        assert FORM.fullmatch(second.get_secret_value())
        assert second != first
        assert store.read("a") == second
        before = store.previous("a")
        assert before is not None
        assert before.value == first
        assert abs(before.until - until) < timedelta(seconds=1)
        assert {mode(path) for path in store.root.iterdir()} == {0o600}

    def test_promised_overlap_is_not_cut_short(self, store: SecretStore) -> None:
        store.api_key("a")
        second = store.rotate("a", datetime.now(UTC) + timedelta(days=7))
        with pytest.raises(FleetError, match=r"promised until .* delete .*a\.previous"):
            store.rotate("a", datetime.now(UTC) + timedelta(days=7))
        assert store.read("a") == second

    def test_ended_overlap_makes_room(self, store: SecretStore) -> None:
        store.api_key("a")
        second = store.rotate("a", datetime.now(UTC) - timedelta(seconds=1))
        store.rotate("a", datetime.now(UTC) + timedelta(days=1))
        before = store.previous("a")
        assert before is not None
        assert before.value == second

    def test_interrupted_rotation_can_be_repeated(
        self, store: SecretStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = store.api_key("a")
        replace = store.replace

        def die(name: str, value: str) -> None:
            if name == "a":
                raise KeyboardInterrupt
            replace(name, value)

        monkeypatch.setattr(store, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            store.rotate("a", datetime.now(UTC) + timedelta(days=7))
        assert store.read("a") == first
        monkeypatch.undo()
        assert store.rotate("a", datetime.now(UTC) + timedelta(days=7)) != first

    def test_unknown_key(self, store: SecretStore) -> None:
        with pytest.raises(FleetError, match="no such key yet"):
            store.rotate("a", datetime.now(UTC))

    def test_file_of_another_form_is_refused(self, store: SecretStore) -> None:
        store.replace("a.previous", "hello")
        with pytest.raises(FleetError, match="delete the file to end the overlap"):
            store.previous("a")
