"""Docker's configuration, apt's answers and the GPUs on the bus, as the tasks read them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from fleet.container_toolkit.facts import Cdi, CdiDevices
from fleet.docker.facts import DockerInfo, GroupMembers, OwnedFile, OwnedText
from fleet.docker.operations import RefusedError, refuse_exposed, refuse_unknown_log_opts
from fleet.docker.packages import compose_package, versions
from fleet.docker.settings import Docker, docker_configuration
from fleet.kit.apt import AptRepository
from fleet.kit.errors import FleetError
from fleet.kit.facts.apt import ExistingFiles, Installed, PackageVersions, primary_fingerprints
from tests.fleets import ALTERNATIVE_CONTAINERS, fleet_of
from tests.unit.test_facts import ask


def settings(**values: Any) -> Docker:
    return Docker(**values)


class TestConfiguration:
    def test_default(self) -> None:
        assert docker_configuration(settings()) == {
            "live-restore": True,
            "log-driver": "local",
            "features": {"cdi": True},
            "log-opts": {"max-size": "10m", "max-file": "5"},
        }

    def test_every_setting_has_its_key(self) -> None:
        box = fleet_of({"box": ("", ALTERNATIVE_CONTAINERS)})["box"]
        assert docker_configuration(box[Docker]) == {
            "live-restore": False,
            "log-driver": "json-file",
            "features": {"cdi": True},
            "log-opts": {"max-size": "50m", "max-file": "3"},
            "data-root": "/srv/docker",
            "registry-mirrors": ["https://mirror.internal:5000"],
            "insecure-registries": ["registry.internal:5000", "10.0.0.0/8"],
            "proxies": {
                "http-proxy": "http://proxy.internal:3128",
                "https-proxy": "http://proxy.internal:3128",
                "no-proxy": "127.0.0.1,::1,localhost,mirror.internal",
            },
        }

    def test_journal_is_rotated_by_journald(self) -> None:
        assert "log-opts" not in docker_configuration(settings(log_driver="journald"))

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"hosts": ["fd://", "tcp://0.0.0.0:2375"]}, "hosts = tcp://0.0.0.0:2375: .*remove it"),
            ({"iptables": False}, "iptables = false"),
            ({"ip6tables": False}, "ip6tables = false"),
        ],
    )
    def test_exposing_keys_are_refused(self, config: dict[str, Any], words: str) -> None:
        with pytest.raises(RefusedError, match=words):
            refuse_exposed(config)

    def test_log_options_of_another_driver_are_refused(self) -> None:
        """`dockerd --validate` accepts them, and then the daemon does not start."""
        opts = {"labels": "team", "max-size": "10m", "mode": "non-blocking"}
        with pytest.raises(RefusedError) as refused:
            refuse_unknown_log_opts({"log-driver": "local", "log-opts": opts})
        assert "log-opts: labels: " in str(refused.value)
        assert "or set docker_log_driver = 'json-file'" in str(refused.value)
        refuse_unknown_log_opts({"log-driver": "json-file", "log-opts": opts})
        refuse_unknown_log_opts({"log-driver": "local"})

    def test_others_are_not(self) -> None:
        refuse_exposed({"hosts": ["unix:///x"], "iptables": True, "bip": "10.9.0.1/24"})


class TestPackages:
    def test_versions_leave_the_distribution_open(self) -> None:
        box = fleet_of({"box": ("", ALTERNATIVE_CONTAINERS)})["box"]
        assert versions(box) == {
            "docker-ce": "5:28.5.2-*",
            "docker-ce-cli": "5:28.5.2-*",
            "containerd.io": "1.7.29-*",
            "docker-compose-plugin": "2.24.0-*",
        }

    def test_distribution_without_compose_2(self) -> None:
        box = fleet_of({"box": ("", {"docker_enabled": True, "docker_source": "distribution"})})
        release = {"ID": "debian", "VERSION_ID": "12"}
        with pytest.raises(FleetError, match=r"debian 12 has no Compose .* docker_source = 'dock"):
            compose_package(box["box"], release)

    def test_source_file(self) -> None:
        flat = AptRepository("x", "http://m/deb/amd64", "/", "", "http://m/key", "AB" * 20)
        assert flat.source.path == "/etc/apt/sources.list.d/llm-fleet-x.sources"
        assert flat.source.text.splitlines()[1:] == [
            "Types: deb",
            "URIs: http://m/deb/amd64",
            "Suites: /",
            "Signed-By: /etc/apt/keyrings/llm-fleet-x.gpg",
        ]


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

    def test_cdi_list(self) -> None:
        listing = ["driver", "nvidia.com/gpu=0", "nvidia.com/gpu=all"]
        assert CdiDevices().process(listing) == Cdi(
            ("nvidia.com/gpu=0", "nvidia.com/gpu=all"), True
        )
        assert CdiDevices().process([]) == Cdi()
