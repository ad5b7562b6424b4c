"""What is refused of weights before anything is changed, and with which fix."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleet.cli import main
from fleet.declare.fleet import Fleet
from fleet.kit.errors import SettingsError
from fleet.weights.declared import declared, directories, is_off, lock_command
from fleet.weights.files import loader_config, managed_files
from fleet.weights.lock import Lock, lock_text
from fleet.weights.paths import WEIGHTS_TOKEN, WEIGHTS_UNIT_FILE
from tests.fleets import GPU, fleet_of

ENTRY: dict[str, Any] = {
    "name": "toy", "repository": "openai/toy", "revision": "ab" * 20, "lock": "locks/toy.lock",
}  # fmt: skip
ROW = {"path": "config.json", "size": 22, "sha256": "cd" * 32}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes the lock of `ENTRY`, with changes."""

    def lay(**values: Any) -> Path:
        made = {
            "source": "huggingface", "repository": "openai/toy", "revision": "ab" * 20,
            "include": ("*",), "exclude": (), "files": [ROW], **values,
        }  # fmt: skip
        path = tmp_path / "locks" / "toy.lock"
        path.parent.mkdir(exist_ok=True)
        path.write_text(lock_text(Lock.model_validate(made)))
        return path

    return lay


def with_weights(*entries: dict[str, Any], **settings: Any) -> Fleet:
    return fleet_of({"gpu1": ("gpu", {**GPU[1], "weights": list(entries or [ENTRY]), **settings})})


def refused(*entries: dict[str, Any], **settings: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        with_weights(*entries, **settings)
    [line] = caught.value.problems
    return line


class TestLocks:
    def test_one_that_fits(self, write: Any, tmp_path: Path) -> None:
        write()
        [item] = declared(with_weights()["gpu1"]).values()
        assert item.folder == f"/var/lib/llm-fleet-weights/toy/{'ab' * 20}"
        assert item.bytes == 22

    def test_without_one(self) -> None:
        line = refused()
        assert line.startswith("gpu1: weights: toy: lock = 'locks/toy.lock': ")
        assert "No such file or directory" in line
        assert line.endswith(
            f"run: fleet weights lock openai/toy --revision {'ab' * 20} -o locks/toy.lock"
        )

    def test_one_that_is_none(self, write: Any) -> None:
        write().write_text("{}")
        assert "no lock: source: Field required" in refused()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"revision": "cd" * 20}, f"was made for revision = '{'ab' * 20}'"),
            ({"repository": "openai/other"}, "was made for repository = 'openai/toy'"),
            ({"include": ["*.json"]}, "was made for include = ['*']"),
            ({"exclude": ["*.bin"]}, "was made for exclude = []"),
            ({"source": "modelscope"}, "was made for source = 'huggingface'"),
        ],
    )
    def test_one_for_something_else(self, write: Any, change: dict[str, Any], words: str) -> None:
        write()
        assert words in refused({**ENTRY, **change})

    def test_command_writes_what_is_declared(self, write: Any) -> None:
        """Its words are those of the declaration, whatever a shell makes of them."""
        patterns = {"include": ["original/*", "a b?"], "exclude": ["*.bin"]}
        line = refused({**ENTRY, **patterns})
        words = shlex.split(line.partition("run: ")[2])
        command = main.commands["weights"].commands["lock"]  # type: ignore[attr-defined]
        asked = command.make_context("lock", words[3:]).params
        assert asked["include"] == tuple(patterns["include"])
        assert asked["exclude"] == tuple(patterns["exclude"])
        assert asked["path"] == Path("locks/toy.lock")
        assert CliRunner().invoke(main, ["weights", "lock", "--help"]).exit_code == 0


class TestToken:
    def test_that_is_not_in_the_store(self, write: Any) -> None:
        write()
        line = refused(weights_token="hub")
        assert "the store has no secret weights_token_hub; put the hub's token" in line

    def test_is_a_secret_of_the_host(self, write: Any, own_secrets: Path) -> None:
        write()
        fleet = with_weights()
        fleet.secrets.text("weights_token_hub", lambda: "hf_abc")
        fleet = with_weights(weights_token="hub")
        files = {file.path: file for file in managed_files(fleet["gpu1"], fleet)}
        token = files[WEIGHTS_TOKEN]
        assert (token.text, token.mode, token.user) == ("hf_abc\n", "600", "root")
        assert not [path for path, file in files.items() if "hf_abc" in repr(file)]
        others = [file.text for path, file in files.items() if path != WEIGHTS_TOKEN]
        assert not [text for text in others if "hf_abc" in text]
        assert loader_config(fleet["gpu1"])["weights"][0]["token"] is True

    @pytest.mark.parametrize("value", ["two words", "a\nb", "$(id)"])
    def test_that_is_none(self, write: Any, value: str) -> None:
        write()
        with_weights().secrets.text("weights_token_hub", lambda: value)
        line = refused(weights_token="hub")
        assert "is no token" in line
        assert value not in line

    def test_in_clear(self, write: Any) -> None:
        write()
        line = refused(weights_token="hub", weights_endpoint="http://mirror.internal")
        assert "would carry it over the network" in line

    def test_none_is_left_of_one_before(self, write: Any) -> None:
        write()
        fleet = with_weights()
        files = {file.path: file.text for file in managed_files(fleet["gpu1"], fleet)}
        assert files[WEIGHTS_TOKEN] == "\n"
        assert loader_config(fleet["gpu1"])["weights"][0]["token"] is False

    def test_is_not_for_modelscope(self, write: Any) -> None:
        write(source="modelscope")
        entry = {**ENTRY, "source": "modelscope"}
        with_weights(entry).secrets.text("weights_token_hub", lambda: "hf_abc")
        me = with_weights(entry, weights_token="hub")["gpu1"]
        [found] = loader_config(me)["weights"]
        assert (found["token"], found["endpoint"]) == (False, "https://modelscope.cn")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([ENTRY, ENTRY], "'toy' is there 2 times"),
        ([{**ENTRY, "revision": "main"}], "40 lower-case hexadecimal digits"),
        ([{**ENTRY, "revision": "AB" * 20}], "40 lower-case hexadecimal digits"),
        ([{**ENTRY, "repository": "a/b/c"}], "not a repository"),
        ([{**ENTRY, "repository": ".."}], "not a repository"),
        ([{**ENTRY, "name": "../x"}], "not a key name"),
        ([{**ENTRY, "include": []}], "empty; name at least one"),
        ([{**ENTRY, "include": ["$(id)"]}], "not a pattern"),
        ([{**ENTRY, "lock": "../../etc/passwd"}], "no such|No such"),
        ([{**ENTRY, "source": "elsewhere"}], "huggingface"),
    ],
)
def test_settings(entries: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        with_weights(*entries)


def test_host_without_weights_has_nothing(default: Fleet) -> None:
    for host in default:
        assert is_off(host)
        assert managed_files(host, default) == []
        assert list(directories(host)) == []


def test_unit_may_write_where_the_weights_are(write: Any) -> None:
    write()
    fleet = with_weights(weights_dir="/data/weights")
    files = {file.path: file.text for file in managed_files(fleet["gpu1"], fleet)}
    assert "ReadWritePaths=/data/weights\n" in files[WEIGHTS_UNIT_FILE]
    assert "ProtectSystem=strict" in files[WEIGHTS_UNIT_FILE]


def test_command_of_the_plain_declaration(write: Any) -> None:
    write()
    [item] = declared(with_weights()["gpu1"]).values()
    assert lock_command(item.declaration) == (
        f"fleet weights lock openai/toy --revision {'ab' * 20} -o locks/toy.lock"
    )
