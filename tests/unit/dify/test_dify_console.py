"""Calls of Dify's console: which are asked again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from dify_console import Answer, Connection, Dify, DifyError


@pytest.mark.parametrize("lost", [None, Answer(504, b"", [])])
@pytest.mark.parametrize("path", ["/console/api/apps/imports", "/console/api/apps/x/api-keys"])
def test_what_makes_something_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, lost: Any
) -> None:
    # The answer was lost, not the request.
    config = {"url": "http://127.0.0.1:9", "memory": str(tmp_path / "m"),
              "keys": str(tmp_path / "k"), "retry_timeout": 1}  # fmt: skip
    asked = []

    def request(_: Any, method: str, path: str, *__: Any, **___: Any) -> Any:
        asked.append((method, path))
        if lost is None:
            raise TimeoutError("timed out")
        return lost

    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(Connection, "request", request)
    with pytest.raises(DifyError):
        Dify(config).call("POST", path, {})
    assert len(asked) == 1
    with pytest.raises(DifyError):
        Dify(config).call("GET", path)
    assert len(asked) > 2
