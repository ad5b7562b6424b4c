"""apt's and gpg's answers."""

from __future__ import annotations

import re
from pathlib import Path

from fleet.kit.facts.apt import ExistingFiles, Installed, PackageVersions, primary_fingerprints
from tests.unit.facts import ask


class TestFacts:
    def test_only_primary_keys_count(self) -> None:
        listing = [
            "pub:-:4096:1:8D81803C0EBFCD88:1487788586:::-:::escaESCA::::::23::0:",
            "fpr:::::::::9DC858229FC7DD38854AE2D88D81803C0EBFCD88:",
            "uid:-::::1487792064::8D9D::Docker Release (CE deb) <docker@docker.com>::::::::::0:",
            "sub:-:4096:1:7EA0A9C3F273FCD8:1487788586::::::s::::::23:",
            "fpr:::::::::D3306A018370199E527AE7997EA0A9C3F273FCD8:",
            "pub:-:4096:1:1111111111111111:1487788586:::-:::scSC::::::23::0:",
            "fpr:::::::::1111111111111111111111111111111111111111:",
        ]
        assert primary_fingerprints(listing) == (
            "9DC858229FC7DD38854AE2D88D81803C0EBFCD88",
            "1" * 40,
        )

    def test_packages(self) -> None:
        lines = [
            "docker-ce 5:29.7.2-1~debian.13~trixie hold installed",
            "gpg 2.4.7-21 install installed",
            "runc  unknown not-installed",
            "containerd 1.7.24 deinstall config-files",
        ]
        assert PackageVersions().process(lines) == {
            "docker-ce": Installed("5:29.7.2-1~debian.13~trixie", held=True),
            "gpg": Installed("2.4.7-21", held=False),
        }

    def test_packages_of_this_machine(self) -> None:
        found = ask(PackageVersions(), packages=["dpkg", "no-such-package"])
        assert list(found) == ["dpkg"]
        assert re.match(r"\d+\.", found["dpkg"].version)

    def test_existing_files(self, tmp_path: Path) -> None:
        (tmp_path / "a b").touch()
        (tmp_path / "link").symlink_to("nowhere")
        paths = [str(tmp_path / name) for name in ("a b", "link", "none")]
        assert ask(ExistingFiles(), paths=paths) == paths[:2]
        assert ask(ExistingFiles(), paths=[]) == []
