"""Contradictions that settings of several capabilities can have alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from fleet.declare.fleet import FleetHost
from fleet.declare.relations import missing, not_for_env, unreachable
from fleet.declare.settings import Settings
from fleet.declare.types import Listen

HOST = FleetHost("box", frozenset(), "box", (), frozenset())


class Chess(Settings):
    """Settings of no capability there is."""

    prefix: ClassVar[str] = "chess_"

    image: str | None = None
    owner: str | None = None


class TestMissing:
    FIXES: ClassVar = {"image": "'chess:1'", "owner": "an address"}

    def test_each_has_a_line(self) -> None:
        assert list(missing(HOST, Chess(), self.FIXES)) == [
            "box: chess_image is missing; set it to 'chess:1'",
            "box: chess_owner is missing; set it to an address",
        ]

    def test_what_is_set_has_none(self) -> None:
        """Whatever it is set to: an empty text is the type's to refuse."""
        [line] = missing(HOST, Chess(image=""), self.FIXES)
        assert "chess_owner" in line
        assert list(missing(HOST, Chess(), {})) == []


class TestUnreachable:
    def test_private_that_lets_nobody_in(self) -> None:
        assert list(unreachable(HOST, Chess(), "private", ())) == [
            "box: chess_listen = 'private' without chess_allow_from: nobody could reach it; "
            "name at least one network"
        ]

    @pytest.mark.parametrize(
        ("listen", "callers"), [("private", ("10.0.0.0/8",)), ("loopback", ())]
    )
    def test_reachable(self, listen: Listen, callers: tuple[str, ...]) -> None:
        assert list(unreachable(HOST, Chess(), listen, callers)) == []


class TestNotForEnv:
    @staticmethod
    def lines(*env: str, ours: tuple[str, ...] = ()) -> Iterator[str]:
        return not_for_env(HOST, Chess(), env, ours)

    @pytest.mark.parametrize(
        "name",
        [
            "KEY",
            "KEYS",
            "OPENAI_API_KEY",
            "OPENAI_API_KEYS",
            "API_KEY_FILE",
            "X_API_KEY_2",
            "HF_TOKEN",
            "TOKEN_URL",
            "CLIENTSECRET",
            "DB_PASSWORD",
            "PGPASSFILE",
        ],
    )
    def test_name_of_a_secret(self, name: str) -> None:
        assert list(self.lines(name)) == [
            f"box: chess_env: {name} looks like a secret, and an inventory is no place for one; "
            "leave it out"
        ]

    @pytest.mark.parametrize(
        "name", ["MONKEY", "KEYWORD_X", "X_KEYWORDS", "HOTKEY_2", "REDIS_KEY_PREFIX", "LOG_LEVEL"]
    )
    def test_other_names(self, name: str) -> None:
        assert list(self.lines(name)) == []

    def test_all_are_told_in_one_line(self) -> None:
        [line] = self.lines("B_TOKEN", "LOG_LEVEL", "A_KEY")
        assert "chess_env: A_KEY, B_TOKEN looks like a secret" in line

    def test_name_that_is_set_already(self) -> None:
        """It is told as that alone, though it may look like a secret too."""
        lines = self.lines("PORT", "CHESS_KEY", "LOG_LEVEL", ours=("PORT", "CHESS_KEY", "DATA"))
        assert list(lines) == [
            "box: chess_env: CHESS_KEY, PORT is set by this project; leave it out, or use its "
            "setting"
        ]
