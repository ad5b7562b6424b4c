"""Ollama's own steps."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from fleet import pins
from fleet.kit.errors import FleetError
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.facts.jobs import Download, FetchJob
from fleet.kit.facts.listeners import Listener, Listeners
from fleet.kit.facts.places import Place, Places
from fleet.kit.facts.units import Unit, UnitState
from fleet.ollama.facts import OllamaReleases, Release
from tests.fleets import GPU
from tests.plan.conftest import from_bare, in_declared_state
from tests.plan.jobs import job, still_running
from tests.plan.simulation import RUNNING, Answers, bare, plan

HOSTS = {"gpu1": ("gpu", {})}
INSTALL = f"Ollama | Install Ollama {pins.OLLAMA_VERSION}"
TRY = "Ollama | Try what changes"
SWITCH = f"Ollama | Switch to Ollama {pins.OLLAMA_VERSION}"
RUN = "Ollama | Run Ollama as declared"
DIRECTORY = f"/opt/ollama/{pins.OLLAMA_VERSION}"
FETCH_UNIT = f"llm-fleet-fetch-ollama-{pins.OLLAMA_VERSION}.service"


@pytest.fixture
def answers() -> Answers:
    """A converged GPU host."""
    return in_declared_state("gpu only", from_bare("gpu only"))["gpu1"]


def test_from_bare() -> None:
    names = from_bare("gpu only").names("gpu1")
    assert [name for name in names if name.startswith("Ollama")] == [
        "Ollama | Install tools",
        "Ollama | Create the group",
        "Ollama | Create the user",
        "Ollama | Create the home",
        "Ollama | Create the models directory",
        "Ollama | Install the release fetcher",
        INSTALL,
        TRY,
        SWITCH,
        "Ollama | Install the unit",
        RUN,
    ]


class TestRelease:
    @pytest.mark.parametrize(("machine", "arch"), [("x86_64", "amd64"), ("aarch64", "arm64")])
    def test_pinned_tarball_of_the_architecture(self, machine: str, arch: str) -> None:
        planned = plan(HOSTS, {"gpu1": bare(machine=machine)})
        fetch, found = planned.step("gpu1", INSTALL).lines
        [link] = planned.step("gpu1", SWITCH).lines
        url = (
            "https://github.com/ollama/ollama/releases/download/"
            f"v{pins.OLLAMA_VERSION}/ollama-linux-{arch}.tar.zst"
        )
        sha256 = pins.OLLAMA_SHA256[pins.OLLAMA_VERSION, arch]
        assert f"/fetch-release {url} {sha256} {DIRECTORY} ;" in fetch
        assert found == f'[ "$(cat {DIRECTORY}/.sha256)" = {sha256} ]'
        assert link == (
            f"ln -sfn {DIRECTORY} /opt/ollama/current.new "
            "&& mv -T /opt/ollama/current.new /opt/ollama/current"
        )

    def test_declared_address_checksum_and_proxy(self) -> None:
        fetch, _ = from_bare("alternative").step("gpu1", "Ollama | Install Ollama 0.40.0-rc1").lines
        assert (
            "--setenv HTTPS_PROXY=http://proxy.internal:3128 "
            "--setenv NO_PROXY=127.0.0.1,::1,localhost,mirror.internal,10.0.0.0/8 /usr"
        ) in fetch
        assert (
            "/fetch-release http://mirror.internal:8080/releases/v0.40.0-rc1/"
            f"ollama-linux-amd64.tar.zst {'ab' * 32} /opt/ollama/0.40.0-rc1 ;"
        ) in fetch

    @pytest.mark.parametrize(
        ("is_active", "tools"),
        [
            (True, ["systemctl is-active"]),
            (False, ["systemctl is-active", "systemctl reset-failed", "systemd-run --quiet"]),
        ],
        ids=["runs already", "does not run, or has failed"],
    )
    def test_host_fetches_in_one_unit_of_its_own(
        self, is_active: bool, tools: list[str], tmp_path: Path
    ) -> None:
        """A lost connection does not stop it, and a deploy that comes second attaches to it.

        The command is run for real, with tools that write down how they were called.
        """
        log = tmp_path / "calls"
        for tool, status in (("systemctl", 0 if is_active else 3), ("systemd-run", 0)):
            path = tmp_path / tool
            path.write_text(
                f'#!/bin/sh\necho "{tool} $*" >>{log}\n[ "$1" != is-active ] || exit {status}\n'
            )
            path.chmod(0o755)
        start = from_bare("gpu only").step("gpu1", INSTALL).lines[0]
        subprocess.run(["sh", "-c", start], check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
        calls = log.read_text().splitlines()
        assert [" ".join(call.split()[:2]) for call in calls] == tools
        assert all(FETCH_UNIT in call for call in calls)

    def test_other_checksum_fetches_again(self, answers: Answers) -> None:
        """A tarball of the same version is another release."""
        answers[OllamaReleases] = lambda version: Release("0" * 64, DIRECTORY)
        planned = plan(HOSTS, {"gpu1": answers})
        assert planned.names("gpu1") == [INSTALL]
        fetch, _ = planned.lines("gpu1")
        assert "fetch-release" in fetch

    def test_release_that_is_there_is_switched_to(self, answers: Answers) -> None:
        """Back to a version that is still on the disk: nothing is fetched."""
        sha256 = pins.OLLAMA_SHA256[pins.OLLAMA_VERSION, "amd64"]
        answers[OllamaReleases] = lambda version: Release(sha256, "/opt/ollama/0.40.0")
        planned = plan(HOSTS, {"gpu1": answers})
        assert planned.names("gpu1") == [TRY, SWITCH]
        assert planned.lines("gpu1")[-1].startswith(f"ln -sfn {DIRECTORY} ")

    def test_link_is_switched_when_the_fetch_is_done(self, answers: Answers) -> None:
        running = Download("active", "success", 5, 10)
        done = Download("inactive", "success")
        seen: list[Download] = []
        look = job(running, running, running, done)
        answers[OllamaReleases] = lambda version: Release()
        answers[FetchJob] = lambda unit, directory: seen.append(look()) or seen[-1]
        start, *_, link = plan(HOSTS, {"gpu1": answers}).lines("gpu1")
        assert "systemd-run" in start
        assert link.startswith("ln -sfn")
        assert seen[-4:] == [running, running, running, done]

    def test_failed_fetch_shows_its_journal_before_anything_is_switched(
        self, answers: Answers
    ) -> None:
        answers[OllamaReleases] = lambda version: Release()
        answers[FetchJob] = job(Download("failed", "exit-code"))
        _, evidence, *_, link = plan(HOSTS, {"gpu1": answers}).lines("gpu1")
        assert f"-u {FETCH_UNIT}" in evidence
        assert "journalctl --no-pager -o cat -n 20" in evidence
        assert evidence.endswith(f"systemctl reset-failed -- {FETCH_UNIT} ; fi; exit 1")
        assert link.startswith("ln -sfn")

    def test_planning_never_waits_for_a_running_fetch(self, answers: Answers) -> None:
        """`--dry` tells at once; it must not sit there until somebody else's fetch is done."""
        answers[OllamaReleases] = lambda version: Release()
        answers[FetchJob] = still_running(Download("active", "success", 5, 10))
        assert plan(HOSTS, {"gpu1": answers}).names("gpu1") == [INSTALL, TRY, SWITCH]


class TestUnit:
    @pytest.mark.parametrize(
        ("change", "restarts"),
        [
            ({"is_outdated": True}, True),
            ({"needs_daemon_reload": True}, True),
            ({"active_state": "failed"}, True),
            ({"active_state": "inactive", "load_state": "not-found"}, True),
            ({"load_state": "error"}, True),
            ({}, False),
        ],
    )
    def test_running_state_decides(
        self, answers: Answers, change: dict[str, Any], restarts: bool
    ) -> None:
        """No file is written by this run: an earlier one died before its restart."""

        def state(unit: str, files: list[str]) -> Unit:
            return replace(RUNNING, **change) if unit == "ollama.service" else RUNNING

        answers[UnitState] = state
        planned = plan(HOSTS, {"gpu1": answers})
        assert planned.names("gpu1") == ([RUN] if restarts else [])
        if restarts:
            restart, health = [line for line in planned.lines("gpu1") if "journalctl" in line]
            assert re.match(r"\( systemctl (re)?start ollama.service \)", restart)
            assert "http://127.0.0.1:11434/api/version" in health

    def test_switched_release_and_changed_unit_both_count(self, answers: Answers) -> None:
        asked: dict[str, list[str]] = {}

        def state(unit: str, files: list[str]) -> Unit:
            asked[unit] = files
            return RUNNING

        answers[UnitState] = state
        plan(HOSTS, {"gpu1": answers})
        assert asked["ollama.service"] == [
            "/etc/systemd/system/ollama.service",
            "/opt/ollama/current",
            "/opt/ollama/0.32.7/.sha256",
        ]

    def test_health_is_asked_on_the_declared_address(self) -> None:
        lines = from_bare("alternative").step("gpu1", RUN).lines
        assert [line for line in lines if "'http://[fd00::11]:21434/api/version'" in line]

    def test_user_owns_the_models_and_cannot_log_in(self) -> None:
        lines = from_bare("alternative").lines("gpu1")
        assert "useradd -d /var/lib/ollama -s /usr/sbin/nologin -g ollama -r -M ollama" in lines
        assert (
            "umask 022; mkdir -p /data && install -d -o ollama -g ollama -m 755 /data/models"
        ) in lines

    def test_own_programs_belong_to_root(self) -> None:
        files = from_bare("gpu only").files("gpu1")
        ours = [item for path, item in files.items() if path.startswith("/usr/")]
        assert {(state.user, state.group) for _, state in ours} == {("root", "root")}
        # What is no program is imported by one.
        assert {state.mode for text, state in ours if text.startswith("#!")} == {"755"}
        assert {state.mode for text, state in ours if not text.startswith("#!")} == {"644"}

    def test_another_listen_address_changes_what_depends_on_it(self, answers: Answers) -> None:
        """The unit, the loader's view of the API, and nothing of the firewall without gateways."""
        planned = plan({"gpu1": GPU}, {"gpu1": answers})
        assert sorted(planned.files("gpu1")) == [
            "/etc/llm-fleet/models.json",
            "/etc/systemd/system/ollama.service",
        ]


class TestTrial:
    def test_same_unit_beside_the_one_that_runs(self, answers: Answers) -> None:
        """Its sandbox and settings, the declared release, any free port; the loader stays out."""
        running = Listener(ip_address("127.0.0.1"), 11434, "7", "ollama", "ollama.service")
        answers[Listeners] = lambda: (running,)
        done = plan({"gpu1": ("gpu", {"ollama_keep_alive": "7m"})}, {"gpu1": answers})
        assert [name for name in done.names("gpu1") if name != RUN] == [
            TRY,
            "Ollama | Install the unit",
        ]
        write, run = done.step("gpu1", TRY).commands
        tried = set(write.connector_arguments["_stdin"])
        unit = set(done.files("gpu1")["/etc/systemd/system/ollama.service"][0].split("\n"))
        assert unit - tried == {
            "ExecStart=/opt/ollama/current/bin/ollama serve",
            'Environment="OLLAMA_HOST=127.0.0.1:11434"',
            "Restart=always",
            "RestartSec=3",
        }
        assert tried - unit == {
            f"ExecStart={DIRECTORY}/bin/ollama serve",
            'Environment="OLLAMA_HOST=127.0.0.1:0"',
            "RuntimeMaxSec=180",
        }
        assert " llm-fleet-trial-ollama.service 60 /api/version ||" in run.get_raw_value()

    def test_port_that_is_free_is_tried_too(self) -> None:
        """One below 1024 is root's, say."""
        write, _ = from_bare("gpu only").step("gpu1", TRY).commands
        tried = write.connector_arguments["_stdin"]
        assert 'Environment="OLLAMA_HOST=127.0.0.1:11434"' in tried

    def test_new_release_is_tried_before_it_is_switched_to(self, answers: Answers) -> None:
        sha256 = pins.OLLAMA_SHA256[pins.OLLAMA_VERSION, "amd64"]
        answers[OllamaReleases] = lambda version: Release(sha256, "/opt/ollama/0.31.0")
        assert plan(HOSTS, {"gpu1": answers}).names("gpu1") == [TRY, SWITCH]

    def test_unit_that_stays_is_not_tried(self, answers: Answers) -> None:
        answers[UnitState] = lambda unit, files: replace(RUNNING, active_state="failed")
        assert TRY not in plan(HOSTS, {"gpu1": answers}).names("gpu1")


class TestDirectories:
    def test_models_below_the_home_are_made_by_the_user(self) -> None:
        """Who could have put a link there while root looked away."""
        answers = bare() | {
            Places: lambda paths: {
                path: Place(path, path, roots_alone=path != "/var/lib/ollama/models")
                for path in paths
            }
        }
        [line] = (
            plan(HOSTS, {"gpu1": answers})
            .step("gpu1", "Ollama | Create the models directory")
            .lines
        )
        assert line == (
            "setpriv --reuid ollama --regid ollama --clear-groups -- sh -c "
            "'umask 022; mkdir -p /var/lib/ollama/models && chmod 755 /var/lib/ollama/models'"
        )

    def test_links_are_followed_in_the_unit(self, answers: Answers) -> None:
        """systemd waits for the disk that they lead to, and opens that."""
        where = {"/var/lib/ollama": "/big/home", "/data/models": "/big/models"}
        answers[Places] = lambda paths: {path: Place(path, where.get(path, path)) for path in paths}
        done = plan({"gpu1": ("gpu", {"ollama_models_dir": "/data/models"})}, {"gpu1": answers})
        unit = done.files("gpu1")["/etc/systemd/system/ollama.service"][0].split("\n")
        paths = "/var/lib/ollama /big/home /data/models /big/models"
        assert f"RequiresMountsFor={paths}" in unit
        assert f"ReadWritePaths={paths}" in unit


def test_foreign_installation_is_refused_with_the_way_out() -> None:
    foreign = ["/etc/systemd/system/ollama.service"]
    answers = bare() | {ForeignFiles: lambda patterns: foreign}
    with pytest.raises(
        FleetError, match=r"systemctl disable --now ollama.service; rm /etc/systemd"
    ):
        plan(HOSTS, {"gpu1": answers})


def test_drop_in_for_our_unit_is_refused_without_harm_to_our_unit() -> None:
    """Whoever does as they are told must not disable the Ollama that the fleet runs."""
    path = "/etc/systemd/system/ollama.service.d/my own.conf"
    with pytest.raises(FleetError) as refused:
        plan(HOSTS, {"gpu1": bare() | {ForeignFiles: lambda patterns: [path]}})
    assert "disable" not in str(refused.value)
    assert f"run there: rm '{path}'; the deploy" in str(refused.value)


def test_snap_is_refused_with_the_way_out() -> None:
    def found(patterns: list[str]) -> list[str]:
        unit = "/etc/systemd/system/snap.ollama.listener.service"
        return [unit] if "/etc/systemd/system/snap.ollama.*.service" in patterns else []

    with pytest.raises(FleetError, match=r"Ollama was installed here as a snap.* snap remove oll"):
        plan(HOSTS, {"gpu1": bare() | {ForeignFiles: found}})
