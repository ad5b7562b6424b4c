"""What apt is told of a repository."""

from __future__ import annotations

from fleet.kit.repositories import AptRepository


class TestRepository:
    def test_source_file(self) -> None:
        flat = AptRepository("x", "http://m/deb/amd64", "/", "", "http://m/key", "AB" * 20)
        assert flat.source.path == "/etc/apt/sources.list.d/llm-fleet-x.sources"
        assert flat.source.text.splitlines()[1:] == [
            "Types: deb",
            "URIs: http://m/deb/amd64",
            "Suites: /",
            "Signed-By: /etc/apt/keyrings/llm-fleet-x.gpg",
        ]
