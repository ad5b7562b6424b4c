"""The ordered list as a whole: refusals, order, convergence and secrets."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from pathlib import Path

import pytest
from pyinfra.facts.files import Directory
from pyinfra.facts.server import Arch

import fleet.declare.load
from fleet.gateway.paths import GATEWAY_PROGRAMS
from fleet.gateway.preflight import WITHOUT_LUA
from fleet.kit import secrets
from fleet.kit.errors import FleetError, SettingsError
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.jobs import FailedJobs
from fleet.kit.files import ManagedFile
from fleet.kit.host_programs import program_files
from fleet.kit.paths import STAGE
from fleet.kit.secrets import SecretStore
from fleet.platform.facts import Clock, HostAddresses, HostClock
from fleet.platform.preflight import SUPPORTED
from tests.fleets import BOX, EDGE, GPU
from tests.plan.conftest import SCENARIOS, from_bare, in_declared_state
from tests.plan.simulation import (
    Plan,
    UnregisteredFact,
    bare,
    everything_shown,
    plan,
    secrets_of,
)

RELEASES = [(name, release) for name, releases in SUPPORTED.items() for release in releases]


class TestEverySupportedRelease:
    @pytest.mark.parametrize(("distribution", "release"), RELEASES)
    def test_bare_host_is_planned(self, scenario: str, distribution: str, release: str) -> None:
        groups = " ".join(groups for groups, _ in SCENARIOS[scenario].values())
        if (distribution, release) in WITHOUT_LUA and "gateway" in groups:
            with pytest.raises(FleetError, match="has no libnginx-mod-http-lua"):
                from_bare(scenario, distribution, release)
            return
        planned = from_bare(scenario, distribution, release)
        capabilities = {
            host: {name.split(" | ")[0] for name in planned.names(host)} for host in planned.steps
        }
        roles = {host: groups for host, (groups, _) in SCENARIOS[scenario].items()}
        for host, groups in roles.items():
            assert capabilities[host] == {"Firewall"} | (
                {"Memory", "Ollama", "Models"} if "gpu" in groups.split() else set()
            ) | ({"Weights"} if "weights" in SCENARIOS[scenario][host][1] else set()) | (
                {"Platform", "Gateway"} if "gateway" in groups.split() else set()
            )

    @pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
    def test_every_architecture(self, machine: str) -> None:
        plan({"gpu1": GPU}, {"gpu1": bare(machine=machine)})


class TestRefusals:
    @pytest.mark.parametrize(
        ("distribution", "release"),
        [
            ("debian", "11"),
            ("ubuntu", "20.04"),
            ("ubuntu", "25.10"),
            ("rocky", "9"),
            ("alpine", "3"),
        ],
    )
    def test_unsupported_release(self, distribution: str, release: str) -> None:
        with pytest.raises(FleetError) as refused:
            plan({"gpu1": GPU}, {"gpu1": bare(distribution, release)})
        assert str(refused.value) == (
            f"@fake/gpu1: {distribution} {release} is not supported, "
            "only debian 12, 13; ubuntu 22.04, 24.04, 26.04"
        )

    def test_other_init_system(self) -> None:
        answers = bare() | {Directory: lambda path: None}
        with pytest.raises(FleetError, match="@fake/gpu1: systemd is not the init system here"):
            plan({"gpu1": GPU}, {"gpu1": answers})

    def test_secrets_of_another_store(self, secrets_store: Path) -> None:
        """As from a second checkout, or after the inventory's file was renamed."""
        other = SecretStore(secrets_store / "elsewhere")
        note = ManagedFile("/etc/llm-fleet/secrets-store", f"{other.identity}\n")
        answers = bare() | {FileStates: lambda paths: {note.path: note.state}}
        with pytest.raises(FleetError) as refused:
            plan({"box": BOX}, {"box": answers})
        assert str(refused.value) == (
            "@fake/box: its keys and passwords come from another secrets store than "
            f"{secrets_store / 'default'}, and would all change; bring that store here from the "
            "machine that deployed last (an inventory's store has its file's path), or, to have "
            "all made anew, remove /etc/llm-fleet/secrets-store on the host"
        )

    def test_unknown_architecture(self) -> None:
        with pytest.raises(FleetError, match=r"no checksum for Ollama .* on riscv64"):
            plan({"gpu1": GPU}, {"gpu1": bare(machine="riscv64")})

    def test_bad_settings_of_the_last_host_stop_the_first(self) -> None:
        """Nothing is asked of any host: the sound one has no facts to give here."""
        hosts = {"gpu1": GPU, "edge": ("gateway", {**EDGE[1], "gateway_prot": 1})}
        with pytest.raises(SettingsError, match="@fake/edge: gateway_prot = 1"):
            plan(hosts, {"gpu1": {}, "edge": {}})

    def test_unregistered_fact_fails_a_test(self) -> None:
        answers = bare()
        del answers[Arch]
        with pytest.raises(UnregisteredFact, match="@fake/gpu1: Arch"):
            plan({"gpu1": GPU}, {"gpu1": answers})


class TestOrder:
    def test_capabilities_follow_each_other(self) -> None:
        planned = from_bare("both on one")
        capabilities = [name.split(" | ")[0] for name in planned.names("box")]
        assert list(dict.fromkeys(capabilities)) == [
            "Platform", "Firewall", "Gateway", "Memory", "Ollama", "Models",
        ]  # fmt: skip
        assert capabilities == sorted(capabilities, key=list(dict.fromkeys(capabilities)).index)

    def test_firewall_is_up_before_anything_listens(self, bare_plan: Plan) -> None:
        for host in bare_plan.steps:
            wall = bare_plan.index(host, r"firewall-guard try ")
            for listens in (r"apt-get .* nginx", r"systemctl restart (ollama|nginx)\.service"):
                if any(re.search(listens, line) for line in bare_plan.lines(host)):
                    assert wall < bare_plan.index(host, listens), host

    def test_every_wall_before_any_service(self, two_hosts: Plan) -> None:
        """Steps of the two hosts are paired by their line in deploy.py, not by their number."""
        capabilities = [name.split(": ")[1].split(" | ")[0] for name in two_hosts.order]
        last_wall = len(capabilities) - capabilities[::-1].index("Firewall") - 1
        assert last_wall < capabilities.index("Ollama")
        assert last_wall < capabilities.index("Gateway")

    def test_a_file_is_in_place_before_its_unit_runs(self, bare_plan: Plan) -> None:
        """Whatever unit is started by a command, its own file was installed by an earlier one."""
        for host in bare_plan.steps:
            lines = bare_plan.lines(host)
            started = 0
            for place, line in enumerate(lines):
                match = re.search(r"systemctl (?:restart|start)(?: --no-block)? ([\w.@-]+)", line)
                if not match:
                    continue
                started += 1
                unit = match[1].replace("nginx.service", "nginx.service.d/llm-fleet.conf")
                unit = re.sub(
                    r"(prometheus-(\w+)-exporter\.service)", r"\1.d/llm-fleet-\2.conf", unit
                )
                installed = [
                    i
                    for i, text in enumerate(lines)
                    if re.search(f" /etc/systemd/system/{re.escape(unit)}( |$)", text)
                ]
                assert installed, f"{host}: {match[1]} has no file"
                assert installed[0] < place, f"{host}: {match[1]}"
            assert started >= 2

    def test_every_stage_is_judged_before_it_replaces_anything(self, bare_plan: Plan) -> None:
        """What has a judge is judged in the stage; a check after the fact would be too late."""
        judges = {
            "idle": r"^cd \S+ && nginx -t ",
            "nginx.conf": r"^cd \S+ && nginx -t ",
            "declared.lua": r"^cd \S+ && nginx -t ",
            "tls.crt": r"^cd \S+ && nginx -t ",
            "tls.key": r"^cd \S+ && nginx -t ",
            "ollama.service": r"^cd \S+ && .*systemd-analyze verify .*\./ollama\.service",
            "ollama-models.service": r"^cd \S+ && .*verify .*\./ollama-models\.service",
            "ollama-models-again.timer": r"^cd \S+ && .*verify .*\./ollama-models-again\.timer",
            "llm-fleet-firewall.service": r"^cd \S+ && .*systemd-analyze verify",
        }
        found: set[str] = set()
        for steps in bare_plan.steps.values():
            for step in steps:
                for place, line in enumerate(step.lines):
                    match = re.match(r"install -D .*/(\S+)\.new \|\|", line)
                    if match and (name := match[1]) in judges:
                        found.add(name)
                        judged = [
                            i for i, text in enumerate(step.lines) if re.search(judges[name], text)
                        ]
                        assert judged, f"{step.name}: {name} is not judged"
                        assert judged[0] < place, f"{step.name}: {name} is judged too late"
        assert "ollama-models.service" in found

    def test_judged_files_are_all_planned(self) -> None:
        """... or the test above would hold for a deploy that installs nothing."""
        installed = {Path(path).name for path in from_bare("both on one").files("box")}
        assert installed == {
            "secrets-store",
            "firewall.nft",
            "llm-fleet-firewall.service",
            "firewall-guard",
            "fetch-release",
            "ollama.service",
            *(Path(file.path).name for file in program_files("models", "model_loader")),
            "models.json",
            "ollama-models.service",
            "ollama-models-again.timer",
            "gateway_fields.lua",
            *(Path(path).name for path in GATEWAY_PROGRAMS),
            "drained",
            "served",
            "idle",
            "nginx.conf",
            "declared.lua",
            "tls.crt",
            "tls.key",
            "llm-fleet.conf",
            "60-llm-fleet-gateway.conf",
            "llm-fleet-nginx.conf",
            "llm-fleet-node.conf",
            "gateway_metrics.py",
            "llm-fleet-gateway-metrics.service",
            "logrotate.conf",
            "llm-fleet-gateway-logs.service",
            "llm-fleet-gateway-logs.timer",
            "connections.nft",
            "llm-fleet-gateway-connections.service",
        }


class TestConverged:
    def test_second_run_plans_nothing(self, scenario: str, bare_plan: Plan) -> None:
        second = plan(SCENARIOS[scenario], in_declared_state(scenario, bare_plan))
        assert {host: second.names(host) for host in second.steps} == {
            host: [] for host in second.steps
        }
        assert second.order == []

    def test_second_run_shows_no_change(self, scenario: str, bare_plan: Plan) -> None:
        """What `--dry --json` says, which counts the change that each operation foresees."""
        second = plan(SCENARIOS[scenario], in_declared_state(scenario, bare_plan))
        assert '"hosts_with_change": []' in second.json
        assert not re.search(r'"hosts_with_change": \["', second.json)

    def test_first_run_shows_its_changes(self, bare_plan: Plan) -> None:
        for host in bare_plan.steps:
            assert f'"hosts_with_change": ["@fake/{host}"' in bare_plan.json or (
                f'"@fake/{host}"]' in bare_plan.json
            )

    def test_changed_setting_plans_its_file_only(self) -> None:
        """One setting more than what is on the host: one file, and nothing is restarted by it."""
        first = from_bare("two hosts")
        answers = in_declared_state("two hosts", first)
        hosts = {"gpu1": ("gpu", {**GPU[1], "ollama_keep_alive": "1h"}), "edge": EDGE}
        planned = plan(hosts, answers)
        assert planned.order == [
            "gpu1: Ollama | Try what changes",
            "gpu1: Ollama | Install the unit",
        ]
        [path] = planned.files("gpu1")
        assert path == "/etc/systemd/system/ollama.service"
        assert 'Environment="OLLAMA_KEEP_ALIVE=1h"' in planned.files("gpu1")[path][0]


class TestSecrets:
    @pytest.mark.parametrize("name", ["both on one", "two hosts", "alternative"])
    @pytest.mark.parametrize("diff", [False, True], ids=["", "--diff"])
    def test_value_is_in_no_output(
        self, name: str, diff: bool, secrets_store: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither argv, nor names, nor JSON, nor the log at its most talkative."""
        caplog.set_level(logging.DEBUG, "pyinfra")
        hosts = SCENARIOS[name]
        planned = plan(hosts, {host: bare() for host in hosts}, diff=diff)
        # Certificates are kept beside their keys, and are nobody's secret.
        values = [v for v in secrets_of(secrets_store) if "BEGIN CERTIFICATE" not in v]
        assert values
        shown = everything_shown(planned) + caplog.text
        for value in values:
            if "BEGIN PRIVATE KEY" in value:
                assert [line for line in value.splitlines()[1:-1] if line in shown] == []
                continue
            assert re.fullmatch(r"sk-[0-9a-f]{64}", value)
            assert value not in shown
            assert value.removeprefix("sk-") not in shown

    def test_digest_travels_on_stdin_into_one_private_file(self, secrets_store: Path) -> None:
        """It is there after all, and nowhere else: the test above is not about nothing."""
        planned = from_bare("both on one")
        [key] = secrets_of(secrets_store / "default", "gateway_key_team-a")
        value = hashlib.sha256(key.encode()).hexdigest()
        carriers = [
            str(command)
            for command in planned.commands("box")
            if value in repr(command.connector_arguments)
        ]
        assert carriers == [f"cat > {STAGE}/declared.lua"]
        holders = {
            path: state for path, (text, state) in planned.files("box").items() if value in text
        }
        [(path, state)] = holders.items()
        assert path == "/etc/llm-fleet/gateway/declared.lua"
        assert (state.mode, state.user, state.group) == ("600", "root", "root")

    def test_stage_is_private_before_it_holds_anything(self, bare_plan: Plan) -> None:
        for host in bare_plan.steps:
            for step in bare_plan.steps[host]:
                if any(line.startswith("cat >") for line in step.lines):
                    assert re.match(
                        r"rm -rf (\S+) && install -d -m 700 /run/llm-fleet \1$", step.lines[0]
                    ), step.name
                    assert step.lines[-1] == f"rm -rf {STAGE}", step.name

    def test_diff_shows_the_rest(self, caplog: pytest.LogCaptureFixture) -> None:
        """... so that the silence about keys is a choice and no accident."""
        caplog.set_level(logging.INFO, "pyinfra")
        plan({"box": BOX}, {"box": bare()}, diff=True)
        assert "OLLAMA_KEEP_ALIVE=5m" in caplog.text
        assert "declared.lua (secret, content not shown)" in caplog.text


@pytest.mark.parametrize("off", [-86400.0, 301.0])
def test_a_clock_that_is_wrong_is_refused(off: float) -> None:
    answers = bare() | {HostClock: lambda: Clock(time.time() + off, True)}
    with pytest.raises(FleetError, match=r"its clock is [-+]\d+ s from this machine's"):
        plan({"gpu1": GPU}, {"gpu1": answers})


def test_address_that_the_host_does_not_have_is_refused() -> None:
    answers = bare() | {HostAddresses: lambda: ["127.0.0.1", "10.9.9.9"]}
    with pytest.raises(FleetError, match=r"private_address = '\S+': the host has no such address"):
        plan({"gpu1": GPU}, {"gpu1": answers})


def test_what_a_file_names_is_there_before_it(bare_plan: Plan) -> None:
    """A deploy that is killed, and a reboot: each unit finds what its files refer to."""
    for host in bare_plan.steps:
        assert bare_plan.named_too_early(host) == []


def test_failed_jobs_of_earlier_deploys_are_forgotten() -> None:
    """A deploy that was cut off told nobody of them, and the host stays "degraded"."""
    jobs = ["llm-fleet-fetch-ollama-0.1.0.service"]
    answers = bare() | {FailedJobs: lambda: jobs}
    planned = plan({"gpu1": GPU}, {"gpu1": answers})
    [line] = planned.step("gpu1", "Platform | Forget jobs of earlier deploys that failed").lines
    assert line == f"systemctl reset-failed -- {jobs[0]}"


def test_dry_run_makes_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in a secret's place is planned with, and is kept nowhere."""
    monkeypatch.setattr(fleet.declare.load, "project_of", lambda _: tmp_path)
    monkeypatch.setattr(secrets, "_IMAGINED", {})
    monkeypatch.setattr(secrets, "_LOOKING", [True])
    planned = plan({"gpu1": GPU, "edge": EDGE}, {"gpu1": bare(), "edge": bare()})
    assert "Gateway | Install the configuration" in planned.names("edge")
    [(root, names)] = secrets.imagined().items()
    assert root == tmp_path / ".secrets" / "default"
    assert {"gateway_key_team-a", "gateway_ca_key", "store_id"} <= set(names)
    assert list(tmp_path.iterdir()) == []
