"""Docker's own steps."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from fleet.docker.facts import DockerInfo, GroupMembers, OwnedFile, OwnedText
from fleet.kit.errors import FleetError
from fleet.kit.facts.apt import ExistingFiles, Installed, KeyringFingerprints, PackageVersions
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.units import UnitState
from fleet.kit.paths import STAGE
from fleet.pins import DOCKER_KEY
from tests.fleets import ALTERNATIVE_CONTAINERS, Hosts
from tests.plan.simulation import RUNNING, Answers, Plan, bare, plan

MERGE = "Docker | Merge the configuration"
RUN = "Docker | Run Docker as declared"
TRUST = "Docker | Trust Docker's repository"
INSTALL = "Docker | Install Docker 29.7.2"
CE = {
    "docker-ce": "5:29.7.2-1~debian.13~codename",
    "docker-ce-cli": "5:29.7.2-1~debian.13~codename",
    "containerd.io": "2.3.3-1~debian.13~codename",
    "docker-compose-plugin": "5.5.0-1~debian.13~codename",
}
INFO = {"ServerVersion": "29.7.2", "LiveRestoreEnabled": True, "DockerRootDir": "/var/lib/docker"}


def hosts(**data: Any) -> Hosts:
    return {"box": ("containers", {"docker_enabled": True, **data})}


def planned(answers: Answers, **data: Any) -> Plan:
    """The plan of a host with Docker; of the firewall's steps, which it has too, nothing."""
    whole = plan(hosts(**data), {"box": answers})
    steps = [step for step in whole.steps["box"] if not step.name.startswith("Firewall")]
    order = [f"box: {step.name}" for step in steps if step.commands]
    return Plan({"box": steps}, whole.json, order)


def after(first: Plan) -> Answers:
    """What a host answers once `first` has been run."""
    files = first.files("box")
    states = {path: state for path, (_, state) in files.items()}
    held = {name: Installed(version, held=True) for name, version in CE.items()}

    def owned(path: str, record: str) -> OwnedText:
        return OwnedText(*(files[name][0] if name in files else "" for name in (path, record)))

    return (
        bare()
        | {
            FileStates: lambda paths: {path: states[path] for path in paths if path in states},
            KeyringFingerprints: lambda path: (DOCKER_KEY,),
            PackageVersions: lambda packages: {n: p for n, p in held.items() if n in packages},
            OwnedFile: owned,
            DockerInfo: lambda: INFO,
            GroupMembers: lambda group: [],
            UnitState: lambda unit, files: RUNNING,
        }
        | _tools()
    )


def _tools() -> Answers:
    packages = {name: ["1"] for name in ("ca-certificates", "gpg")}
    [fact] = [fact for fact in bare() if fact.__name__ == "DebPackages"]
    return {fact: lambda: packages}


@pytest.fixture
def answers() -> Answers:
    """A converged host."""
    return after(planned(bare()))


def test_from_bare() -> None:
    assert planned(bare()).names("box") == [
        "Docker | Install tools",
        TRUST,
        INSTALL,
        MERGE,
        RUN,
    ]


def test_second_run_plans_nothing(answers: Answers) -> None:
    assert planned(answers).order == []


def test_mask_that_a_killed_run_left_goes_before_the_configuration_is_judged(
    answers: Answers,
) -> None:
    """A masked unit has no command line, and with none the judgement fails at every deploy."""
    masked = replace(RUNNING, file_state="masked-runtime")
    done = planned(
        answers | {UnitState: lambda unit, files: masked},
        docker_log_driver="journald",
    )
    assert done.index("box", "unmask --runtime --quiet docker.service") < done.index(
        "box", "--validate --config-file"
    )


def test_gpu_host_without_containers_stays_without_docker() -> None:
    names = plan({"gpu1": ("gpu", {})}, {"gpu1": bare()}).names("gpu1")
    assert not [name for name in names if name.startswith(("Docker", "Container"))]


@pytest.mark.parametrize(
    ("distribution", "release"),
    [("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "26.04")],
)
class TestEveryDistribution:
    def test_docker_ce(self, distribution: str, release: str) -> None:
        first = planned(bare(distribution, release))
        text, _ = first.files("box")["/etc/apt/sources.list.d/llm-fleet-docker.sources"]
        assert f"URIs: https://download.docker.com/linux/{distribution}\n" in text
        assert "Suites: codename\nComponents: stable\n" in text
        assert "Signed-By: /etc/apt/keyrings/llm-fleet-docker.gpg\n" in text

    def test_its_own(self, distribution: str, release: str) -> None:
        answers = bare(distribution, release)
        if (distribution, release) == ("debian", "12"):
            with pytest.raises(FleetError, match=r"debian 12 has no Compose .*'docker'"):
                planned(answers, docker_source="distribution")
            return
        compose = "docker-compose" if distribution == "debian" else "docker-compose-v2"
        steps = planned(answers, docker_source="distribution")
        lines = steps.step("box", "Docker | Install the distribution's Docker").lines
        assert f"policy {compose} " in lines[-2]
        assert "ge 2.24" in lines[-2]
        assert (
            f" install -y --no-install-recommends --allow-change-held-packages {compose}"
            in (lines[-1])
        )
        assert not [line for line in steps.lines("box") if "download.docker.com" in line]


class TestRepository:
    def test_key_is_checked_before_anything_is_trusted(self) -> None:
        lines = planned(bare()).step("box", TRUST).lines
        fetch = "apt-helper download-file https://download.docker.com/linux/debian/gpg /run/llm-"
        check, export = (
            next(i for i, line in enumerate(lines) if part in line) for part in (DOCKER_KEY, "-exp")
        )
        assert fetch in lines[check - 1]
        assert "not trusted" in lines[check]
        assert "exit 1" in lines[check]
        assert export == check + 1
        assert lines.index(f"rm -rf {STAGE}") > export

    def test_other_key_in_the_keyring_is_replaced(self, answers: Answers) -> None:
        for wrong in ((), ("A" * 40,), (DOCKER_KEY, "A" * 40)):
            answers[KeyringFingerprints] = lambda path, wrong=wrong: wrong
            assert planned(answers).names("box") == [TRUST]

    def test_sources_by_hand_are_removed(self, answers: Answers) -> None:
        """Two sources of one repository with two keys stop apt altogether."""
        answers[ExistingFiles] = lambda paths: [path for path in paths if "docker.list" in path]
        assert planned(answers).lines("box") == ["rm -f /etc/apt/sources.list.d/docker.list"]

    def test_mirror_with_its_own_key(self) -> None:
        steps = planned(bare(), **ALTERNATIVE_CONTAINERS)
        lines = steps.step("box", TRUST).lines
        assert any("http://mirror.internal/docker/debian/gpg" in line for line in lines)
        assert any("AB" * 20 in line for line in lines)
        assert not any(DOCKER_KEY in line for line in lines)


class TestPackages:
    def test_pinned_held_and_not_started(self) -> None:
        lines = planned(bare()).step("box", INSTALL).lines
        assert lines[0] == "sh -s -- 600 dpkg --configure -a"
        assert lines[1].endswith(" update")
        assert lines[2].startswith("systemctl mask --runtime --quiet docker.service ;")
        assert "'docker-ce=5:29.7.2-*'" in lines[2]
        assert "'containerd.io=2.3.3-*'" in lines[2]
        hold = f"sh -s -- 600 apt-mark hold {' '.join(CE)}"
        assert lines[3:] == [hold]

    @pytest.mark.parametrize("version", ["5:29.7.1-1~x", "5:29.7.20-1~x", "5:30.0.0-1~x"])
    def test_other_version_is_replaced(self, answers: Answers, version: str) -> None:
        held = {name: Installed(text, held=True) for name, text in CE.items()}
        held["docker-ce"] = Installed(version, held=True)
        answers[PackageVersions] = lambda packages: held
        assert planned(answers).names("box") == [INSTALL]

    def test_lost_hold_is_put_back(self, answers: Answers) -> None:
        loose = {name: Installed(text, held=name != "docker-ce") for name, text in CE.items()}
        answers[PackageVersions] = lambda packages: loose
        assert planned(answers).lines("box") == ["sh -s -- 600 apt-mark hold docker-ce"]

    def test_the_distributions_give_way(self, answers: Answers) -> None:
        """In one transaction, and not purged: that would delete every volume."""
        answers[PackageVersions] = lambda packages: {
            name: Installed("1", held=False) for name in ("docker.io", "runc") if name in packages
        }
        line = planned(answers).step("box", INSTALL).lines[2]
        assert " docker.io- runc- ;" in line
        assert "purge" not in line


class TestConfiguration:
    def test_foreign_keys_stay(self) -> None:
        answers = bare()
        answers[OwnedFile] = lambda path, record: OwnedText('{"bip": "10.9.0.1/24"}')
        config = json.loads(planned(answers).files("box")["/etc/docker/daemon.json"][0])
        assert config["bip"] == "10.9.0.1/24"
        assert config["live-restore"] is True

    def test_judged_before_it_replaces(self) -> None:
        lines = planned(bare()).step("box", MERGE).lines
        judged = next(i for i, line in enumerate(lines) if "--validate --config-file" in line)
        moved = next(i for i, line in enumerate(lines) if line.endswith("/docker/daemon.json"))
        recorded = next(i for i, line in enumerate(lines) if line.endswith("docker-owned.json"))
        assert recorded < judged < moved

    def test_removed_setting_leaves_the_file_and_then_the_record(self, answers: Answers) -> None:
        first = planned(bare(), docker_registry_mirrors=["https://m"])
        answers = after(first)
        steps = planned(answers)
        assert steps.names("box") == [MERGE]
        installs = [line for line in steps.lines("box") if line.startswith("install -D")]
        assert [re.findall(r"/([^/ ]+)\.new \|\|", line)[0] for line in installs] == [
            "daemon.json",
            "docker-owned.json",
        ]
        files = steps.files("box")
        assert "registry-mirrors" not in files["/etc/docker/daemon.json"][0]
        assert "registry-mirrors" not in files["/etc/llm-fleet/docker-owned.json"][0]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{'a': 1}", "/etc/docker/daemon.json is no JSON"),
            ("[]", "/etc/docker/daemon.json is [], and no object"),
            ('{"hosts": ["tcp://0.0.0.0:2375"]}', "whoever reaches it is root"),
            ('{"iptables": false}', "iptables = false"),
        ],
    )
    def test_refusal_fails_the_host_and_touches_nothing(self, text: str, words: str) -> None:
        answers = bare() | {OwnedFile: lambda path, record: OwnedText(text)}
        [line] = planned(answers).step("box", MERGE).lines
        assert words in line
        assert line.endswith(">&2; exit 1")

    def test_data_root_does_not_leave_containers_behind(self, answers: Answers) -> None:
        answers[DockerInfo] = lambda: {**INFO, "Containers": 3}
        [line] = planned(answers, docker_data_root="/srv/docker").step("box", MERGE).lines
        assert "3 containers are in /var/lib/docker" in line
        answers[DockerInfo] = lambda: {**INFO, "Containers": 0}
        lines = planned(answers, docker_data_root="/srv/docker").step("box", MERGE).lines
        assert len(lines) > 1


class TestRestart:
    @pytest.mark.parametrize("outdated", [True, False])
    def test_running_state_decides(self, answers: Answers, outdated: bool) -> None:
        """An earlier run died between the upload and the restart, or apt upgraded the daemon."""
        asked = {}

        def state(unit: str, files: list[str], reloaded: bool = False) -> Any:
            asked[unit] = files
            return replace(RUNNING, is_outdated=outdated)

        answers[UnitState] = state
        assert planned(answers).names("box") == ([RUN] if outdated else [])
        assert asked["docker.service"] == [
            "/etc/docker/daemon.json",
            "/usr/bin/dockerd",
            "/usr/sbin/dockerd",
        ]

    def test_restarts_that_are_asked_for_do_not_count_as_crashes(self, answers: Answers) -> None:
        """The unit allows three starts a minute; a fourth deploy in that time failed on one."""
        answers[UnitState] = lambda unit, files: replace(RUNNING, is_outdated=True)
        forgive, restart = [
            line
            for line in planned(answers).lines("box")
            if "docker.service" in line and "started" not in line
        ]
        assert forgive.startswith("systemctl reset-failed --quiet docker.service")
        assert "systemctl restart docker.service" in restart

    def test_running_daemon_learns_live_restore_first(self, answers: Answers) -> None:
        answers[DockerInfo] = lambda: {**INFO, "LiveRestoreEnabled": False}
        answers[UnitState] = lambda unit, files: replace(RUNNING, is_outdated=True)
        steps = planned(answers)
        assert steps.names("box") == ["Docker | Keep containers through the restart", RUN]
        assert "systemctl reload docker.service" in steps.lines("box")[0]

    def test_without_live_restore_it_does_not(self, answers: Answers) -> None:
        answers[DockerInfo] = lambda: {**INFO, "LiveRestoreEnabled": False}
        assert planned(answers, docker_live_restore=False).names("box") == [MERGE]


class TestGroup:
    def test_members_are_exactly_the_declared(self, answers: Answers) -> None:
        answers[GroupMembers] = lambda group: ["mallory"]
        assert planned(answers).lines("box") == ["gpasswd -M '' docker"]
        assert planned(answers, docker_users=["ops", "ann"]).lines("box") == [
            "gpasswd -M ops,ann docker"
        ]
        answers[GroupMembers] = lambda group: ["ann", "ops"]
        assert planned(answers, docker_users=["ops", "ann"]).order == []
