"""Ollama's own steps."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet import pins
from fleet.kit.errors import FleetError
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.facts.jobs import Download, FetchJob
from fleet.kit.facts.units import Unit, UnitState
from fleet.ollama.facts import OllamaReleases, Release
from tests.fleets import GPU
from tests.plan.conftest import from_bare, in_declared_state
from tests.plan.simulation import RUNNING, Answers, bare, job, plan, still_running

HOSTS = {"gpu1": ("gpu", {})}
INSTALL = f"Ollama | Install Ollama {pins.OLLAMA_VERSION}"
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
        "Ollama | Install the unit",
        RUN,
    ]


class TestRelease:
    @pytest.mark.parametrize(("machine", "arch"), [("x86_64", "amd64"), ("aarch64", "arm64")])
    def test_pinned_tarball_of_the_architecture(self, machine: str, arch: str) -> None:
        planned = plan(HOSTS, {"gpu1": bare(machine=machine)})
        fetch, link = planned.step("gpu1", INSTALL).lines
        url = (
            "https://github.com/ollama/ollama/releases/download/"
            f"v{pins.OLLAMA_VERSION}/ollama-linux-{arch}.tar.zst"
        )
        sha256 = pins.OLLAMA_SHA256[pins.OLLAMA_VERSION, arch]
        assert f"/fetch-release {url} {sha256} {DIRECTORY} ;" in fetch
        assert link == (
            f'[ "$(cat {DIRECTORY}/.sha256)" = {sha256} ] '
            f"&& ln -sfn {DIRECTORY} /opt/ollama/current.new "
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
        [fetch] = planned.lines("gpu1")
        assert "fetch-release" in fetch

    def test_release_that_is_there_is_switched_to(self, answers: Answers) -> None:
        """Back to a version that is still on the disk: nothing is fetched."""
        sha256 = pins.OLLAMA_SHA256[pins.OLLAMA_VERSION, "amd64"]
        answers[OllamaReleases] = lambda version: Release(sha256, "/opt/ollama/0.40.0")
        planned = plan(HOSTS, {"gpu1": answers})
        [line] = planned.lines("gpu1")
        assert f" && ln -sfn {DIRECTORY} " in line

    def test_link_is_switched_when_the_fetch_is_done(self, answers: Answers) -> None:
        running = Download("active", "success", 5, 10)
        done = Download("inactive", "success")
        seen: list[Download] = []
        look = job(running, running, running, done)
        answers[OllamaReleases] = lambda version: Release()
        answers[FetchJob] = lambda unit, directory: seen.append(look()) or seen[-1]
        start, link = plan(HOSTS, {"gpu1": answers}).lines("gpu1")
        assert "systemd-run" in start
        assert link.split(" && ", 1)[1].startswith("ln -sfn")
        assert seen[-4:] == [running, running, running, done]

    def test_failed_fetch_shows_its_journal_before_anything_is_switched(
        self, answers: Answers
    ) -> None:
        answers[OllamaReleases] = lambda version: Release()
        answers[FetchJob] = job(Download("failed", "exit-code"))
        _, evidence, link = plan(HOSTS, {"gpu1": answers}).lines("gpu1")
        assert f"-u {FETCH_UNIT}" in evidence
        assert "journalctl --no-pager -o cat -n 20" in evidence
        assert evidence.endswith(f"systemctl reset-failed -- {FETCH_UNIT} ; fi; exit 1")
        assert link.split(" && ", 1)[1].startswith("ln -sfn")

    def test_planning_never_waits_for_a_running_fetch(self, answers: Answers) -> None:
        """`--dry` tells at once; it must not sit there until somebody else's fetch is done."""
        answers[OllamaReleases] = lambda version: Release()
        answers[FetchJob] = still_running(Download("active", "success", 5, 10))
        assert plan(HOSTS, {"gpu1": answers}).names("gpu1") == [INSTALL]


class TestUnit:
    @pytest.mark.parametrize(
        ("change", "restarts"),
        [
            ({"newest_file": 100.5}, True),
            ({"needs_daemon_reload": True}, True),
            ({"active_state": "failed"}, True),
            ({"active_state": "inactive", "load_state": "not-found"}, True),
            # A process of before, whose youngest child (a loaded model) is newer than the files.
            ({"newest_file": 100.5, "worker_started": 200.0}, True),
            ({"newest_file": 99.5}, False),
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
            restart, health = planned.lines("gpu1")[-2:]
            assert restart.startswith("{ systemctl restart ollama.service ; }")
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
        assert "'http://[fd00::11]:21434/api/version'" in lines[-1]

    def test_user_owns_the_models_and_cannot_log_in(self) -> None:
        lines = from_bare("alternative").lines("gpu1")
        assert "useradd -d /var/lib/ollama -s /usr/sbin/nologin -g ollama -r -M ollama" in lines
        made = lines.index("mkdir -p /data/models")
        assert lines[made + 1 : made + 3] == [
            "chmod 755 /data/models",
            "chown ollama:ollama /data/models",
        ]

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


def test_foreign_installation_is_refused_with_the_way_out() -> None:
    foreign = ["/etc/systemd/system/ollama.service"]
    answers = bare() | {ForeignFiles: lambda patterns: foreign}
    with pytest.raises(FleetError, match="systemctl disable --now ollama; rm /etc/systemd"):
        plan(HOSTS, {"gpu1": answers})
