"""Dify's own steps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from pyinfra.facts.files import File, Sha256File
from pyinfra.facts.server import TmpDir

from fleet.dify.facts import DifyKeyPrints, DifyPending, DifyRelease
from fleet.kit.facts.backups import NewestBackup
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.jobs import LoggedJob, LoggedRun
from fleet.kit.facts.units import UnitState
from tests.alternatives.dify import LEAST
from tests.fleets import Hosts, alternative
from tests.plan.jobs import job
from tests.plan.simulation import RUNNING, Answers, Plan, bare, everything_shown, plan, secrets_of

SHA256 = LEAST["dify_sha256"]
BOX = {"private_address": "10.0.0.5", "ollama_listen": "private", **LEAST}
# Dify on a host of its own, with every setting otherwise.
APART = alternative("gpu1", "edge", "chat")
STACK = "Dify | Run the containers as declared"
SET_UP = "Dify | Set up owner, plugin, models and apps"
KEYS = "Dify | Keep the apps' keys"


def hosts(**data: Any) -> Hosts:
    return {"box": ("gpu dify", {**BOX, **data})}


def pending(*reasons: str) -> Any:
    """Reasons that are there until what does the work has been run."""
    asked: list[str] = []

    def look(program: str, config: str) -> list[str]:
        asked.append(program)
        # Planned once, looked at once more when it is executed, and then it is done.
        return list(reasons) if asked.count(program) <= 2 else []

    return look


def facts(**answers: Any) -> Answers:
    """A bare host's, and those of Dify on it."""
    return bare() | {
        DifyRelease: lambda version: answers.get("release"),
        DifyPending: answers.get("pending") or pending("not installed yet"),
        DifyKeyPrints: lambda: answers.get("prints", {}),
        NewestBackup: lambda directory, prefix: answers.get("age"),
        LoggedJob: job(LoggedRun("active", "", "doing"), LoggedRun()),
        Sha256File: lambda path: None,
        TmpDir: lambda: "/tmp",  # noqa: S108 - of a host that is not there
    }


def planned(answers: Answers | None = None, **data: Any) -> Plan:
    return dify_only(plan(hosts(**data), {"box": answers or facts()}), "box")


def dify_only(whole: Plan, host: str) -> Plan:
    steps = [step for step in whole.steps[host] if step.name.startswith("Dify")]
    order = [f"{host}: {step.name}" for step in steps if step.commands]
    return Plan({host: steps}, whole.json, order)


def after(first: Plan, store: Path) -> Answers:
    """What a host answers once `first` has been run."""
    states = {path: state for path, (_, state) in first.files("box").items()}
    prints = {}
    for role in ("chat", "workflow"):
        path = store / f"dify_fake-box_app_{role}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"app-{role}")
        path.chmod(0o600)
        prints[role] = hashlib.sha256(f"app-{role}".encode()).hexdigest()
    packages = {name: ["1"] for name in ("ca-certificates", "curl", "gzip", "python3", "tar")}
    [installed] = [fact for fact in bare() if fact.__name__ == "DebPackages"]
    return facts(release=SHA256, pending=lambda program, config: [], prints=prints, age=3600.0) | {
        FileStates: lambda paths: {path: states[path] for path in paths if path in states},
        UnitState: lambda unit, files: RUNNING,
        installed: lambda: packages,
    }


@pytest.fixture
def store(secrets_store: Path) -> Path:
    """Where this fleet's secrets are, of which each test has its own app keys."""
    root = secrets_store / "default"
    yield root
    for path in root.glob("dify_fake-box_app_*"):
        path.unlink()


def test_from_bare() -> None:
    assert planned().names("box") == [
        "Dify | Install tools",
        "Dify | Install the programs",
        "Dify | Install the settings",
        "Dify | Fetch Dify 1.16.1",
        STACK,
        SET_UP,
        KEYS,
        "Dify | Install the boot's unit",
        "Dify | Have Dify well after a boot",
        "Dify | Install the backup's unit",
        "Dify | Ask every hour for a backup",
        "Dify | Have a backup",
    ]


def test_what_a_file_names_is_there_before_it() -> None:
    assert planned().named_too_early("box") == []


def test_docker_comes_with_the_group_and_before() -> None:
    whole = plan(hosts(), {"box": facts()})
    names = [step.name for step in whole.steps["box"]]
    assert names.index("Docker | Run Docker as declared") < names.index(STACK)
    assert names.index("Models | Provide the models") < names.index(SET_UP)


def test_set_up_comes_after_the_models_of_other_hosts() -> None:
    """It has Dify ask them a question, through the gateway."""
    order = plan(APART, {name: facts() for name in APART}).order
    asks = order.index(f"chat: {SET_UP}")
    assert order.index("gpu1: Models | Provide the models") < asks
    assert order.index("edge: Gateway | Run nginx as declared") < asks


def test_second_run_plans_nothing(store: Path) -> None:
    answers = after(planned(), store)
    assert planned(answers).order == []


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        ({"release": "0" * 64}, ["Dify | Fetch Dify 1.16.1"]),
        ({"prints": {"chat": "0" * 64}}, [KEYS]),
        ({"age": 90_000.0}, ["Dify | Have a backup"]),
        ({"age": None}, ["Dify | Have a backup"]),
    ],
)
def test_each_difference_is_one_step(store: Path, change: dict[str, Any], steps: list[str]) -> None:
    answers = after(planned(), store)
    [(name, value)] = change.items()
    fact = {"release": DifyRelease, "prints": DifyKeyPrints, "age": NewestBackup}[name]
    answers[fact] = lambda **_: value
    assert planned(answers).names("box") == steps


def test_what_is_left_after_a_run_fails_the_host() -> None:
    answers = facts(pending=lambda program, config: ["nginx: unhealthy"])
    lines = planned(answers).step("box", STACK).lines
    assert "box: nginx: unhealthy" in lines[-1]
    assert lines[-1].count("exit 1") == 2
    assert "journalctl" in lines[-1]


def test_work_is_the_hosts_own_and_is_attached_to() -> None:
    [line, *_] = planned().step("box", STACK).lines
    assert line.partition(" --property ")[0] == (
        "( systemctl is-active --quiet llm-fleet-dify.service || { systemctl reset-failed --quiet "
        "llm-fleet-dify.service 2>/dev/null; systemd-run --quiet --setenv LC_ALL=C "
        "--unit llm-fleet-dify.service"
    )
    assert (
        "--property 'ExecStopPost=/usr/bin/python3 /usr/local/lib/llm-fleet/dify_stack.py unpause "
        "/etc/llm-fleet/dify/stack.json' "
        "/usr/bin/python3 /usr/local/lib/llm-fleet/dify_stack.py converge "
        "/etc/llm-fleet/dify/stack.json ; }"
    ) in line


def test_set_up_and_backups_wait_for_each_other() -> None:
    """By the lock that the stack's program has."""
    [line, *_] = planned().step("box", SET_UP).lines
    assert "/dify_stack.py setup /etc/llm-fleet/dify/stack.json ; }" in line


def test_secrets_are_in_root_only_files_and_shown_nowhere(secrets_store: Path) -> None:
    whole = plan(hosts(), {"box": facts()}, diff=True)
    files = whole.files("box")
    values = secrets_of(secrets_store, "dify_fake-box_*")
    assert len(values) == 12
    shown = everything_shown(whole)
    for value in values:
        assert value not in shown
        holders = [path for path, (text, _) in files.items() if value in text]
        assert holders, value
        assert {files[path][1].mode for path in holders} == {"600"}


def test_paired_values_are_equal() -> None:
    text, _ = planned().files("box")["/etc/llm-fleet/dify/values.env"]
    env = dict(line.split("=", 1) for line in text.splitlines())
    assert env["SANDBOX_API_KEY"] == env["CODE_EXECUTION_API_KEY"]
    assert env["WEAVIATE_API_KEY"] == env["WEAVIATE_AUTHENTICATION_APIKEY_ALLOWED_KEYS"]
    assert env["CELERY_BROKER_URL"] == f"redis://:{env['REDIS_PASSWORD']}@redis:6379/1"
    assert len(env["INIT_PASSWORD"]) <= 30


class TestFirewall:
    def ruleset(self, whole: Plan, host: str) -> list[str]:
        text, _ = whole.files(host)["/etc/llm-fleet/firewall.nft"]
        return [line.strip() for line in text.splitlines()]

    def test_ollama_is_open_to_the_plugin_daemon_alone(self) -> None:
        rules = self.ruleset(plan(hosts(), {"box": facts()}), "box")
        assert [rule for rule in rules if "11434" in rule] == [
            'iifname "br-dify" ip saddr 172.30.91.250 tcp dport 11434 accept '
            'comment "dify\'s plugin daemon"'
        ]
        assert not [rule for rule in rules if "8480" in rule]

    def test_published_to_whom_is_declared(self) -> None:
        whole = plan(APART, {name: facts() for name in APART})
        rules = [rule for rule in self.ruleset(whole, "chat") if "9480" in rule]
        assert rules == [
            'ip saddr { 10.0.0.0/8 } tcp dport 9480 accept comment "dify"',
            'ip6 saddr { fd00::/8 } tcp dport 9480 accept comment "dify"',
            "ip saddr { 10.0.0.0/8 } meta l4proto tcp ct original proto-dst 9480 accept "
            'comment "dify"',
            "ip6 saddr { fd00::/8 } meta l4proto tcp ct original proto-dst 9480 accept "
            'comment "dify"',
        ]
        # The gateway is on another host: nothing of this one is opened to containers.
        assert not [
            rule for rule in self.ruleset(whole, "chat") if "br-dify" in rule and "tcp" in rule
        ]


class TestAlternative:
    @pytest.fixture
    def files(self) -> dict[str, str]:
        whole = plan(APART, {name: facts() for name in APART})
        return {path: text for path, (text, _) in whole.files("chat").items()}

    def test_release_is_fetched_through_the_proxy_but_for_what_is_left_out(self) -> None:
        whole = plan(APART, {name: facts() for name in APART})
        [fetch] = [line for line in whole.lines("chat") if "fetch-release http" in line]
        assert (
            "--setenv HTTPS_PROXY=http://proxy.internal:3128 "
            "--setenv NO_PROXY=127.0.0.1,::1,localhost,mirror.internal "
        ) in fetch

    def test_stack(self, files: dict[str, str]) -> None:
        stack = json.loads(files["/etc/llm-fleet/dify/stack.json"])
        assert stack["publish"] == {"nginx": ["[fd00::3]:9480:80"]}
        assert stack["network"] == {
            "bridge": "br-dify",
            "subnet": "172.29.0.0/20",
            "ip_range": "172.29.0.0/21",
            "daemon": "172.29.15.250",
        }
        assert stack["proxy"] == {
            "url": "http://proxy.internal:3128",
            "direct": ["llm.example.com", "mirror.internal"],
        }
        assert stack["backup"] == {"dir": "/srv/backups/dify", "keep": 30, "due": 43200 - 5400}

    def test_client(self, files: dict[str, str]) -> None:
        client = json.loads(files["/etc/llm-fleet/dify/client.json"])
        assert client["url"] == "http://[fd00::3]:9480"
        assert client["ollama"]["url"] == "https://llm.example.com:8443"
        assert client["ollama"]["key"].startswith("sk-")
        assert [model["name"] for model in client["models"]] == ["analyst", "gpt-oss:120b"]
        assert [app["name"] for app in client["apps"]] == ["Ask", "Ask (workflow)"]
        assert client["apps"][0]["model_config"]["model"]["name"] == "analyst"
        assert client["plugin"]["sha256"] == "ef" * 32

    def test_values(self, files: dict[str, str]) -> None:
        env = dict(
            line.split("=", 1) for line in files["/etc/llm-fleet/dify/values.env"].splitlines()
        )
        assert env["CONSOLE_WEB_URL"] == env["FILES_URL"] == "https://dify.example.com"
        assert env["NEXT_PUBLIC_SOCKET_URL"] == "wss://dify.example.com"
        assert env["PIP_MIRROR_URL"] == "http://mirror.internal/simple"
        assert env["PLUGIN_IGNORE_UV_LOCK"] == "true"
        assert env["FORCE_VERIFYING_SIGNATURE"] == env["MARKETPLACE_ENABLED"] == "false"
        assert env["LOG_LEVEL"] == "DEBUG"


def test_package_from_this_machine(project: Path) -> None:
    package = project / "ollama.difypkg"
    package.write_bytes(b"zip")
    answers = facts() | {File: lambda path: None}
    data = {"dify_plugin": None, "dify_plugin_package": "ollama.difypkg"}
    names = planned(answers, **data, dify_plugin_sha256=SHA256).names("box")
    assert names.index("Dify | Bring the plugin") + 1 == names.index(SET_UP)
