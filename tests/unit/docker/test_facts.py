"""Docker's answers."""

from __future__ import annotations

import json
from pathlib import Path

from fleet.docker.facts import DockerInfo, GroupMembers, OwnedFile, OwnedText
from tests.unit.facts import ask


class TestFacts:
    def test_owned_file(self, tmp_path: Path) -> None:
        path, record = str(tmp_path / "daemon.json"), str(tmp_path / "owned.json")
        assert ask(OwnedFile(), path=path, record=record) == OwnedText()
        # Without a line feed at its end, as many editors leave it.
        Path(path).write_text('{\n  "bip": "x"\n}')
        assert ask(OwnedFile(), path=path, record=record) == OwnedText('{\n  "bip": "x"\n}', "")
        Path(record).write_text('{"paths": []}\n')
        assert ask(OwnedFile(), path=path, record=record).record == '{"paths": []}'

    def test_client_without_a_daemon_is_no_info(self) -> None:
        answer = {"ServerErrors": ["Cannot connect"], "ClientInfo": {}, "ServerVersion": ""}
        assert DockerInfo().process([json.dumps(answer)]) == {}
        assert DockerInfo().process([]) == {}
        assert DockerInfo().process(['{"ServerVersion": "26.1.5"}']) == {"ServerVersion": "26.1.5"}

    def test_members(self) -> None:
        assert GroupMembers().process(["docker:x:990:ops,ann"]) == ["ann", "ops"]
        assert GroupMembers().process(["docker:x:990:"]) == []
        assert ask(GroupMembers(), group="no-such-group") is None
        assert ask(GroupMembers(), group="root") == []
