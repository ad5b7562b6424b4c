"""What the deploy is shown of the loader."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from common import locked
from job_state import State
from tests.unit.models.loader_rig import GB, SUCCESS, Ollama, Run, layer, model


class TestState:
    def test_reader_never_sees_half_a_file(self, run: Run, ollama: Ollama) -> None:
        run(model(ollama))
        path = run.root / "run" / "state.json"
        with path.open() as reader:
            run(model(ollama, "b:1"))
            assert list(json.load(reader)["models"]) == ["a:1"]
        assert list(run.state) == ["b:1"]
        assert list(path.parent.iterdir()) == [path]

    def test_bytes_of_all_layers_are_added_up(
        self, run: Run, ollama: Ollama, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[int, int]] = []
        update = State.update

        def keep(state: Any, name: str, **values: Any) -> None:
            update(state, name, **values)
            if "rate" in values and state.models[name].total > GB:
                seen.append((state.models[name].completed, state.models[name].total))

        monkeypatch.setattr(State, "update", keep)
        ollama.pulls = [[layer("a", 12 * GB, 5 * GB), layer("b", GB, GB),
                         layer("a", 12 * GB, 12 * GB), SUCCESS]]  # fmt: skip
        run(model(ollama))
        assert seen[:3] == [(5 * GB, 12 * GB), (6 * GB, 13 * GB), (13 * GB, 13 * GB)]

    def test_second_loader_waits_for_the_first(self, run: Run, ollama: Ollama) -> None:
        declared = model(ollama)
        with locked(ollama.root / ".llm-fleet.lock", None):
            other = threading.Thread(target=run, args=(declared,))
            other.start()
            deadline = time.monotonic() + 5
            path = run.root / "run" / "state.json"
            while not path.exists() or "another loader" not in path.read_text():
                assert time.monotonic() < deadline
            assert ollama.calls == []
        other.join()
        assert ollama.models == {"a:1"}
