"""Logging in as the owner, with as few counted tries as there can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from dify_console import Answer, Connection, Dify, DifyError
from dify_owner import Owner, is_no_base64
from fleet.dify import declared as dify


def test_lock_out_is_not_taken_for_a_wrong_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try is not counted while Dify is locked, and the lock ends after a day."""
    config = {
        "url": "http://127.0.0.1:9", "memory": str(tmp_path / "memory.json"),
        "keys": str(tmp_path / "keys.json"), "password_name": "x", "reset_command": "y",
        "owner": {"email": "a@b.example", "password": "right-1"}, "retry_timeout": 1,
    }  # fmt: skip
    locked = Answer(429, b'{"message": "Too many incorrect password attempts."}', [])
    monkeypatch.setattr(Connection, "request", lambda *_, **__: locked)
    with pytest.raises(DifyError, match="locked for a day"):
        Owner(Dify(config)).login()
    free = Answer(200, b'{"result": "success"}', [])
    monkeypatch.setattr(Connection, "request", lambda *_, **__: free)
    Owner(Dify(config)).login()


def test_generated_password_is_never_taken_for_base64() -> None:
    """... or trying it plain would be a counted try."""
    make = dify.SECRETS.secrets["owner_password"].make
    assert all(is_no_base64(make()) for _ in range(200))
    assert not is_no_base64("abcd1234")
