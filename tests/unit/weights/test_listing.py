"""What a hub is asked for a lock, and what its answers become."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fleet.cli import main
from fleet.kit.errors import FleetError
from fleet.weights import listing
from fleet.weights.listing import Hub, chosen
from fleet.weights.lock import read_lock
from lab.upstream.faults import Fault
from lab.upstream.hub import Hub as StandIn
from tests.unit.weights.hub_rig import FILES, REPOSITORY, SMALL

Lock = Callable[..., Result]


@pytest.fixture
def lock(hub: StandIn, tmp_path: Path) -> Lock:
    """Runs `fleet weights lock` against the hub."""

    def run(*words: str, repository: str = REPOSITORY, **environment: str) -> Result:
        command = ["weights", "lock", repository, "--endpoint", hub.url, "-o", tmp_path / "x.lock"]
        return CliRunner().invoke(
            main, [*map(str, command), *words], env={"HF_TOKEN": None, **environment}
        )

    return run


class TestLock:
    @pytest.mark.parametrize("source", ["huggingface", "modelscope"])
    def test_has_each_file(self, lock: Lock, hub: StandIn, tmp_path: Path, source: str) -> None:
        commit = hub.repositories[REPOSITORY].commit
        done = lock("--revision", commit, "--source", source)
        assert done.exit_code == 0, done.output
        made = read_lock(tmp_path / "x.lock")
        assert (made.revision, made.include, made.exclude) == (commit, ("*",), ())
        assert {file.path: (file.size, file.sha256) for file in made.files} == {
            path: (len(content), hashlib.sha256(content).hexdigest())
            for path, content in FILES.items()
        }

    def test_fetches_small_files_alone(self, lock: Lock, hub: StandIn) -> None:
        """The hub tells the SHA-256 of large ones, and of small ones git's id."""
        assert lock().exit_code == 0
        assert hub.storage.seen == []
        fetched = {path for _, path, _ in hub.seen if "/resolve/" in path}
        assert {path.rpartition("/")[2] for path in fetched} == {"config.json", "__init__.py"}

    def test_of_a_branch_is_that_of_its_commit(self, lock: Lock, hub: StandIn) -> None:
        done = lock("--revision", "main")
        assert f"revision = {hub.repositories[REPOSITORY].commit}" in done.output

    def test_patterns(self, lock: Lock, tmp_path: Path) -> None:
        assert lock("--include", "original/*").exit_code == 0
        assert [file.path for file in read_lock(tmp_path / "x.lock").files] == [
            "original/model.safetensors"
        ]

    def test_pages(self, lock: Lock, hub: StandIn, tmp_path: Path) -> None:
        """A mirror may write its source's address into the next page's; it is asked itself."""
        hub.page = 1
        hub.names_itself = "https://huggingface.invalid"
        done = lock()
        assert done.exit_code == 0, done.output
        assert len(read_lock(tmp_path / "x.lock").files) == len(FILES)

    @pytest.mark.parametrize("option", ["--include", "--exclude"])
    def test_pattern_that_matches_nothing(self, lock: Lock, tmp_path: Path, option: str) -> None:
        done = lock("--include", "*", option, "orignal/*")
        assert done.exit_code == 2
        assert "no file matches 'orignal/*'; it has 3 files, such as config.json" in done.output
        assert not (tmp_path / "x.lock").exists()

    def test_nothing_is_left(self, lock: Lock) -> None:
        done = lock("--exclude", "*")
        assert done.exit_code == 2
        assert "every file that is included is excluded too" in done.output

    def test_other_content_of_the_same_commit_is_not_believed(
        self, lock: Lock, hub: StandIn, tmp_path: Path
    ) -> None:
        assert lock().exit_code == 0
        assert lock().exit_code == 0, "again it is the same"
        before = (tmp_path / "x.lock").read_text()
        found = hub.repositories[REPOSITORY]
        hub.publish(REPOSITORY, {**FILES, "original/model.safetensors": b"x" * 200_000})
        hub.repositories[REPOSITORY].commit = found.commit
        done = lock()
        assert done.exit_code == 2
        assert "The content of a commit does not change" in done.output
        assert (tmp_path / "x.lock").read_text() == before

    def test_altered_small_file_is_not_locked(self, lock: Lock, hub: StandIn) -> None:
        """What a proxy on the way makes of it has another id than git's."""
        content = hub.repositories[REPOSITORY].files["config.json"]
        (hub.root / content.sha256).write_bytes(SMALL.replace(b"toy", b"tox"))
        done = lock()
        assert done.exit_code == 2
        assert "alters it; nothing was written" in done.output

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--revision", "0" * 40), "404 Not Found: the repository has no such revision"),
            (("--revision", "nowhere"), "404 Not Found: the repository has no such revision"),
            (("--revision", "main", "--source", "modelscope"), "is asked for commits only"),
        ],
    )
    def test_what_the_hub_has_not(self, lock: Lock, words: tuple[str, ...], said: str) -> None:
        done = lock(*words)
        assert done.exit_code == 2
        assert said in done.output

    def test_repository_that_is_none(self, lock: Lock) -> None:
        done = lock(repository="openai/none")
        assert done.exit_code == 2
        assert "401 Unauthorized: there is no such repository, or it is private" in done.output

    @pytest.mark.parametrize("name", ["../x", "a b", "-x", "a/b/c", "$(id)"])
    def test_name_that_is_none(self, lock: Lock, name: str) -> None:
        done = lock(repository=name)
        assert done.exit_code == 2


class TestToken:
    TOKEN = "hf_" + "Secret" * 5

    def test_gated_without_one(self, lock: Lock, hub: StandIn) -> None:
        hub.publish(REPOSITORY, FILES, token=self.TOKEN)
        done = lock()
        assert done.exit_code == 2
        assert "the repository is gated: accept its terms" in done.output
        assert "HF_TOKEN" in done.output

    def test_is_not_sent_in_clear(self, lock: Lock, hub: StandIn) -> None:
        done = lock(HF_TOKEN=self.TOKEN)
        assert done.exit_code == 2
        assert "in clear" in done.output
        assert self.TOKEN not in done.output
        assert hub.seen == []

    def test_is_sent_to_the_hub_alone(self, hub: StandIn) -> None:
        """Also where the content of a file is kept elsewhere, and behind pages."""
        hub.publish(REPOSITORY, FILES, token=self.TOKEN)
        hub.page = 1
        asked = Hub("huggingface", hub.url, self.TOKEN)
        commit = asked.commit(REPOSITORY, "main")
        entries = asked.files(REPOSITORY, commit)
        large = next(entry for entry in entries if entry.sha256)
        asked.locked(REPOSITORY, commit, replace(large, sha256=None))
        assert {item[2].get("Authorization") for item in hub.seen} == {f"Bearer {self.TOKEN}"}
        assert hub.storage.seen
        assert not [item for item in hub.storage.seen if "Authorization" in item[2]]


class TestAnswers:
    def test_busy_hub_is_asked_again(self, hub: StandIn) -> None:
        said: list[str] = []
        hub.faults.list = [Fault(path="/api/models/.*", status=429, times=1)]
        found = Hub("huggingface", hub.url, say=said.append)
        assert found.commit(REPOSITORY, "main") == hub.repositories[REPOSITORY].commit
        assert re.search("429; again in 1 s", said[0])

    def test_hub_that_stays_busy(self, hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(listing, "_LONGEST", 0.0)
        hub.faults.list = [Fault(path="/api/models/.*", status=503)]
        with pytest.raises(FleetError, match="503 Service Unavailable: the hub is out of service"):
            Hub("huggingface", hub.url).files(REPOSITORY, "main")

    def test_something_else_answers(self, hub: StandIn) -> None:
        hub.repositories[REPOSITORY].commit = "nothing of git's"
        with pytest.raises(FleetError, match=r"is http://.* a huggingface endpoint\?"):
            Hub("huggingface", hub.url).commit(REPOSITORY, "main")

    def test_nobody_answers(self) -> None:
        with pytest.raises(FleetError, match=r"http://127\.0\.0\.1:9/api/models/"):
            Hub("huggingface", "http://127.0.0.1:9").files(REPOSITORY, "0" * 40)

    def test_folder_is_no_file(self, hub: StandIn) -> None:
        entries = Hub("huggingface", hub.url).files(REPOSITORY, "main")
        assert [entry.path for entry in entries] == sorted(FILES)


def test_order_is_that_of_paths(hub: StandIn) -> None:
    entries = Hub("modelscope", hub.url).files(REPOSITORY, hub.repositories[REPOSITORY].commit)
    found = chosen(entries, ("*",), (), "it")
    assert [entry.path for entry in found] == sorted(FILES)
