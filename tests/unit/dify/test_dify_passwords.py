"""Passwords that a release prints, by their form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dify_passwords import password_problem

COMPOSE = """
services:
  api:
    environment:
      DB_PASSWORD: ${DB_PASSWORD:-difyai123456}
      REDIS_URL: ${REDIS_URL:-redis://:${REDIS_PASSWORD:-difyai123456}@redis}
      NEW_AUTH_TOKEN: "printed-in-here"
      SHORT_SECRET: ${SHORT_SECRET-ab1}
      SSL_CERT_KEY_FILENAME: ${SSL_CERT_KEY_FILENAME:-dify.key}
  redis:
    command: redis-server --requirepass ${REDIS_PASSWORD:-difyai123456}
"""
EXAMPLE = "REFRESH_TOKEN_EXPIRE_DAYS=30\nPASSWORD_LOGIN_ENABLED=true\nINIT_PASSWORD=\nLANG=C\n"
VECTORS = "NEVER_SEEN_API_KEY='another-one-of-theirs'  # change it\n"


@pytest.fixture
def release(tmp_path: Path) -> Path:
    (tmp_path / "envs/vectorstores").mkdir(parents=True)
    (tmp_path / "docker-compose.yaml").write_text(COMPOSE)
    (tmp_path / ".env.example").write_text(EXAMPLE)
    (tmp_path / "envs/vectorstores/new.env.example").write_text(VECTORS)
    return tmp_path


@pytest.mark.parametrize(
    ("service", "named"),
    [
        ({"environment": {"QDRANT_API_KEY": "difyai123456"}}, "x: QDRANT_API_KEY:"),
        ({"environment": {"URL": "redis://:difyai123456@redis:6379/1"}}, "x: URL:"),
        ({"command": ["redis-server", "--requirepass", "difyai123456"]}, "x: its command:"),
        ({"environment": {"NEW_AUTH_TOKEN": "printed-in-here"}}, "x: NEW_AUTH_TOKEN:"),
        ({"environment": {"NEVER_SEEN_API_KEY": "another-one-of-theirs"}}, "x: NEVER_SEEN_API_KEY"),
        ({"environment": {"SHORT_SECRET": "ab1"}}, "x: SHORT_SECRET:"),
        ({"environment": {"EMPTY": None}, "command": None}, None),
        ({"environment": {"DB_PASSWORD": "ours", "INIT_PASSWORD": ""}}, None),
        ({"environment": {"SHORT": "ab1 is a word"}}, None),
        ({"environment": {"SSL_CERT_KEY_FILENAME": "dify.key"}}, None),
        ({"environment": {"REFRESH_TOKEN_EXPIRE_DAYS": "30", "MAX_TOKENS": 30}}, None),
        ({"environment": {"PASSWORD_LOGIN_ENABLED": "true", "X_TOKEN": "true"}}, None),
    ],
)
def test_password_that_everybody_knows(
    release: Path, service: dict[str, Any], named: str | None
) -> None:
    said = password_problem({"x": {"image": "x:1.0.0"} | service}, release)
    assert bool(said) == bool(named)
    assert (said or "").startswith(named or "")
    for secret in ("difyai123456", "printed-in-here", "another-one-of-theirs"):
        assert secret not in (said or "")
