"""A signed report is what the fleet's store has signed, to the last byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.kit.errors import FleetError
from fleet.kit.secrets import SecretStore
from fleet.operate.signature import check_signed, public_key, signed, signing_key

PAGE = "<html>\n<p>good</p>\n</html>"


def store_at(path: Path) -> SecretStore:
    store = SecretStore(path)
    assert store.identity
    return store


def test_reading_makes_no_key(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "new")
    assert signing_key(store) is None
    assert not store.root.exists()


def test_the_same_store_has_the_same_key_and_tells_nothing_secret(tmp_path: Path) -> None:
    store = store_at(tmp_path / "a")
    key = signing_key(store)
    again = signing_key(SecretStore(store.root))
    other = signing_key(store_at(tmp_path / "b"))
    assert key
    assert again
    assert other
    assert public_key(key) == public_key(again) != public_key(other)
    content = signed(PAGE, key)
    check_signed(content, again)
    assert store.api_key("store_id").get_secret_value().encode() not in content
    # What hosts know of the store is another number.
    assert public_key(key) != store.identity


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"good", b"Good", "changed since"),
        (b"<html>\n", b"<html>", "changed since"),
        (b" -->\n", b" -->\n ", "not signed, or something was written behind"),
        (b" -->\n", b" -->\n<p>more</p>\n", "not signed, or something was written behind"),
        (b"llm-fleet signature", b"signature", "not signed"),
    ],
)
def test_what_was_changed_is_told(tmp_path: Path, before: bytes, after: bytes, reason: str) -> None:
    key = signing_key(store_at(tmp_path))
    assert key
    content = signed(PAGE, key)
    assert before in content
    with pytest.raises(FleetError, match=reason):
        check_signed(content.replace(before, after), key)


def test_another_stores_is_told_from_a_changed_one(tmp_path: Path) -> None:
    mine, other = (signing_key(store_at(tmp_path / name)) for name in "ab")
    assert mine
    assert other
    with pytest.raises(FleetError, match=f"another store, whose public key is {public_key(other)}"):
        check_signed(signed(PAGE, other), mine)
