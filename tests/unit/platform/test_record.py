"""What a host keeps of its deploys is read as what it must be, and compared with this one."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from fleet.ollama.settings import Ollama
from fleet.platform import record
from fleet.platform.record import Begun, Deployed, DeployedRecord, Record, digest, text_of
from fleet.version import Build
from tests.fleets import EDGE, GPU, fleet_of
from tests.unit.facts import ask

DEPLOYED = Deployed(
    "0.3.0", "ab" * 20, False, "alice@laptop", "2026-11-30T20:15:00Z", "1a2b3c4d", "cd" * 32
)
BEGUN = Begun("1a2b3c4d", "alice@laptop", "2026-11-30T20:10:00Z", None)
OWN = Build("0.3.0", "ef" * 20, dirty=False)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the host of a test has its files."""
    for name in ("DEPLOYED", "DEPLOYING"):
        monkeypatch.setattr(record, name, str(tmp_path / Path(getattr(record, name)).name))
    monkeypatch.setattr(record, "RUN", str(tmp_path))
    return tmp_path


def test_what_was_written_is_read(places: Path) -> None:
    assert ask(DeployedRecord()) == Record()
    (places / "deployed.json").write_text(f"{text_of(DEPLOYED)}\n")
    (places / "deploying.json").write_text(f"{text_of(BEGUN)}\n")
    (places / "lock").write_text("bob@desk, run 5e6f7a8b since 2026-11-30 20:15 UTC\n")
    assert ask(DeployedRecord()) == Record(DEPLOYED, BEGUN)


def test_who_holds_the_lock_is_said(places: Path) -> None:
    with (places / "lock").open("w") as file:
        file.write("bob@desk, run 5e6f7a8b since 2026-11-30 20:15 UTC\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ask(DeployedRecord()).at_work == "bob@desk, run 5e6f7a8b since 2026-11-30 20:15 UTC"


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param({"commit": "--upload-pack=x"}, id="an option for git"),
        pytest.param({"who": "alice\x1b[2J"}, id="a terminal's control"),
        pytest.param({"when": "yesterday"}, id="no time"),
        pytest.param({"dirty": "no"}, id="no truth value"),
        pytest.param({"schema": "llm-fleet-deployed/2"}, id="a later form"),
        pytest.param({"who": "x" * 10_000}, id="endless"),
    ],
)
def test_what_a_deploy_does_not_write_is_said_and_not_believed(
    places: Path, spoilt: dict[str, Any]
) -> None:
    text = json.dumps(json.loads(text_of(DEPLOYED)) | spoilt)
    (places / "deployed.json").write_text(text)
    found = ask(DeployedRecord())
    assert found.deployed is None
    [line] = found.unreadable
    assert "deployed.json" in line


def test_digest_is_of_what_is_declared_for_the_host() -> None:
    def of(**gpu: Any) -> str:
        fleet = fleet_of({"gpu1": (GPU[0], {**GPU[1], **gpu}), "edge": EDGE})
        return digest(fleet["gpu1"], fleet)

    assert of() == of() != of(ollama_keep_alive="9m")
    # A default that is written out is no other setting.
    fleet = fleet_of({"gpu1": GPU})
    assert of(ollama_keep_alive=fleet["gpu1"][Ollama].keep_alive) == of()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("older", "is older than what was deployed here last"),
        ("apart", "are of different branches"),
        ("unknown", "does not know the commit that was deployed here last"),
        ("newer", None),
        ("same", None),
    ],
)
def test_a_deploy_that_takes_something_back_is_told(
    monkeypatch: pytest.MonkeyPatch, how: str, words: str | None
) -> None:
    monkeypatch.setattr(record, "standing", lambda _: how)
    lines = list(record.remarks(Record(DEPLOYED), OWN))
    assert len(lines) == (1 if words else 0)
    for line in lines:
        assert words is not None
        assert words in line
        assert "alice@laptop, 2026-11-30T20:15:00Z" in line


def test_a_deploy_without_an_end_is_told_of_once_it_is_no_more() -> None:
    left = Record(DEPLOYED, BEGUN)
    [line] = record.remarks(left, Build("0.3.0", None, dirty=False))
    assert line.startswith("the deploy of alice@laptop (run 1a2b3c4d, 2026-11-30T20:10:00Z) began")
    at_work = Record(DEPLOYED, BEGUN, "alice@laptop, run 1a2b3c4d since 2026-11-30 20:10 UTC")
    assert list(record.remarks(at_work, Build("0.3.0", None, dirty=False))) == []
