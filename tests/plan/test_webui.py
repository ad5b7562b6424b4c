"""Open WebUI's own steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.docker.facts import DockerImage
from fleet.kit.facts.backups import NewestBackup
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.jobs import LoggedJob, LoggedRun
from fleet.kit.facts.units import ABSENT, UnitState
from fleet.webui.paths import WEBUI_UNIT
from tests.alternatives import webui as alternatives
from tests.alternatives.webui import LEAST
from tests.fleets import Hosts, alternative
from tests.plan.jobs import job
from tests.plan.simulation import RUNNING, Answers, Plan, bare, everything_shown, plan, secrets_of

IMAGE = LEAST["webui_image"]
BOX = {"private_address": "10.0.0.5", "gateway_keys": ["webui"], **LEAST}
# Open WebUI on a host of its own, with every setting otherwise.
APART = alternative("gpu1", "edge", "page")
PULL, RUN = "Open WebUI | Pull the image", "Open WebUI | Run Open WebUI as declared"
BACKUP = "Open WebUI | Have a backup"


def hosts(**data: Any) -> Hosts:
    """One host with everything."""
    return {"box": ("gpu gateway webui", {**BOX, **data})}


def facts(age: float | None = None) -> Answers:
    """A bare host's, and the age of its newest backup."""
    return bare() | {
        NewestBackup: lambda directory, prefix: age,
        LoggedJob: job(LoggedRun("active", "", "doing"), LoggedRun()),
    }


def own(whole: Plan, host: str) -> Plan:
    steps = [step for step in whole.steps[host] if step.name.startswith("Open WebUI")]
    return Plan({host: steps}, whole.json, [step.name for step in steps if step.commands])


def converged(age: float = 3600.0) -> Answers:
    """What a host answers once it was deployed."""
    states = {path: state for path, (_, state) in own(plan(hosts(), {"box": facts()}), "box")
              .files("box").items()}  # fmt: skip
    [installed] = [fact for fact in bare() if fact.__name__ == "DebPackages"]
    packages = {name: ["1"] for name in ("ca-certificates", "curl", "python3")}
    return facts(age) | {
        FileStates: lambda paths: {path: states[path] for path in paths if path in states},
        UnitState: lambda unit, files, reloaded=False: RUNNING,
        DockerImage: lambda reference: reference == IMAGE,
        installed: lambda: packages,
    }


def test_from_bare() -> None:
    assert own(plan(hosts(), {"box": facts()}), "box").order == [
        "Open WebUI | Install tools",
        PULL,
        "Open WebUI | Install the settings",
        "Open WebUI | Install the unit",
        RUN,
        "Open WebUI | Install the backup's program",
        "Open WebUI | Install the backup's unit",
        "Open WebUI | Ask every hour for a backup",
        BACKUP,
    ]


def test_what_a_file_names_is_there_before_it() -> None:
    assert own(plan(hosts(), {"box": facts()}), "box").named_too_early("box") == []


def test_docker_comes_with_the_group_and_the_door_before() -> None:
    names = [step.name for step in plan(hosts(), {"box": facts()}).steps["box"]]
    assert names.index("Docker | Run Docker as declared") < names.index(PULL)
    assert names.index("Gateway | Run nginx as declared") < names.index(RUN)


def test_second_run_plans_nothing() -> None:
    assert own(plan(hosts(), {"box": converged()}), "box").order == []


@pytest.mark.parametrize(
    ("fact", "answer", "step"),
    [
        (DockerImage, lambda reference: False, PULL),
        (UnitState, lambda unit, **_: ABSENT if unit == WEBUI_UNIT else RUNNING, RUN),
        (NewestBackup, lambda directory, prefix: 90_000.0, BACKUP),
        (NewestBackup, lambda directory, prefix: None, BACKUP),
    ],
)
def test_each_difference_is_one_step(fact: type, answer: Any, step: str) -> None:
    assert own(plan(hosts(), {"box": converged() | {fact: answer}}), "box").order == [step]


def test_pull_is_the_hosts_own() -> None:
    lines = own(plan(hosts(), {"box": facts()}), "box").step("box", PULL).lines
    [start] = [line for line in lines if "systemd-run" in line]
    assert "--setenv LC_ALL=C --unit llm-fleet-pull-webui.service " in start
    assert " /usr/local/lib/llm-fleet/pull-image" in start
    assert IMAGE in start


def test_secrets_are_in_one_root_only_file_and_shown_nowhere(secrets_store: Path) -> None:
    whole = plan(hosts(), {"box": facts()}, diff=True)
    values = secrets_of(secrets_store, "webui_fake-box_*")
    assert len(values) == 2
    shown = everything_shown(whole)
    for value in values:
        assert value not in shown
        holders = {path: state.mode for path, (text, state) in whole.files("box").items()
                   if value in text}  # fmt: skip
        assert holders == {"/etc/llm-fleet/webui/environment": "600"}


def environment(whole: Plan, host: str) -> dict[str, str]:
    text, _ = whole.files(host)["/etc/llm-fleet/webui/environment"]
    return dict(line.split("=", 1) for line in text.splitlines())


def test_environment() -> None:
    whole = plan(hosts(), {"box": facts()})
    env = environment(whole, "box")
    assert env["ENABLE_SIGNUP"] == env["ENABLE_PERSISTENT_CONFIG"] == "False"
    assert env["OPENAI_API_BASE_URL"] == "https://10.0.0.5:8434/v1"
    assert env["OPENAI_API_KEY"].startswith("sk-")
    # With its mount, in the unit: one of them alone would be a server that trusts nobody.
    unit, _ = whole.files("box")["/etc/systemd/system/llm-fleet-webui.service"]
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        assert f"--env {name}=/etc/ssl/llm-fleet-ca.pem" in unit


def test_own_door_is_open_to_containers() -> None:
    text, _ = plan(hosts(gateway_allow_from=["10.0.0.0/8"]), {"box": facts()}).files("box")[
        "/etc/llm-fleet/firewall.nft"
    ]
    assert 'iifname "docker0" tcp dport 8434 accept comment "open webui"' in text
    assert "8380" not in text


class TestAlternative:
    @pytest.fixture
    def whole(self) -> Plan:
        return plan(APART, {name: facts() for name in APART})

    def test_environment(self, whole: Plan) -> None:
        env = environment(whole, "page")
        assert env["OPENAI_API_BASE_URL"] == "https://llm.example.com:8443/v1"
        assert env["WEBUI_NAME"] == "Ask us"

    def test_unit(self, whole: Plan) -> None:
        text, _ = whole.files("page")["/etc/systemd/system/llm-fleet-webui.service"]
        assert "--publish [fd00::4]:9380:8080" in text
        assert "SSL_CERT_FILE" not in text
        assert "mirror.internal:5000/open-webui/open-webui:v0.9.6@sha256:abab" in text
        assert "fleet-ca" not in text

    def test_backup(self, whole: Plan) -> None:
        text, _ = whole.files("page")["/etc/llm-fleet/webui/backup.json"]
        assert json.loads(text) == {
            "volume": "llm-fleet-webui",
            "image": alternatives.SETTINGS["webui_image"],
            "unit": "llm-fleet-webui.service",
            "programs": "/usr/local/lib/llm-fleet",
            "databases": ["webui.db", "vector_db/chroma.sqlite3"],
            "directory": "/srv/backups/webui",
            "keep": 30,
            "due": 43200 - 5400,
        }

    def test_published_to_whom_is_declared(self, whole: Plan) -> None:
        text, _ = whole.files("page")["/etc/llm-fleet/firewall.nft"]
        assert [line.strip() for line in text.splitlines() if "9380" in line] == [
            'ip saddr { 10.0.0.0/8 } tcp dport 9380 accept comment "open webui"',
            'ip6 saddr { fd00::/8 } tcp dport 9380 accept comment "open webui"',
            "ip saddr { 10.0.0.0/8 } meta l4proto tcp ct original proto-dst 9380 accept "
            'comment "open webui"',
            "ip6 saddr { fd00::/8 } meta l4proto tcp ct original proto-dst 9380 accept "
            'comment "open webui"',
        ]
        # The gateway is on another host.
        assert 'iifname "docker0" tcp' not in text
