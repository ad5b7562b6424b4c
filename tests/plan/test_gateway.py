"""The gateway's own steps."""

from __future__ import annotations

import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from pyinfra.facts.deb import DebPackages
from pyinfra.facts.files import File

from fleet.gateway.facts import Nameservers, ServedServers
from fleet.gateway.paths import GATEWAY_BACKENDS, GATEWAY_IDLE, GATEWAY_PROGRAMS, GATEWAY_SERVED
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.facts.units import Unit, UnitState
from fleet.kit.secrets import SecretStore
from tests.fleets import EDGE, GPU
from tests.plan.conftest import from_bare, in_declared_state
from tests.plan.simulation import RUNNING, Answers, bare, everything_shown, plan, secrets_of

HOSTS = {"gpu1": GPU, "edge": EDGE}
RUN = "Gateway | Run nginx as declared"


@pytest.fixture
def answers() -> dict[str, Answers]:
    """Both hosts converged."""
    return in_declared_state("two hosts", from_bare("two hosts"))


def with_nginx(
    answers: dict[str, Answers], nginx: Unit = RUNNING, /, changed: str = ""
) -> dict[str, Answers]:
    """`answers`, but for nginx on the gateway: its state, and which files were `changed` since."""

    def state(unit: str, files: list[str], *, reloaded: bool = False) -> Unit:
        if unit != "nginx.service":
            return RUNNING
        stems = {PurePosixPath(path).stem for path in files}
        return replace(nginx, is_outdated=bool(stems & set(changed.split())))

    return {**answers, "edge": answers["edge"] | {UnitState: state}}


def test_from_bare() -> None:
    names = from_bare("two hosts").names("edge")
    assert [name for name in names if name.startswith("Gateway")] == [
        "Gateway | Install the drop-in",
        "Gateway | Install nginx",
        "Gateway | Create the directory",
        "Gateway | Create the log's group",
        "Gateway | Create the logs' directory",
        "Gateway | Create the log",
        "Gateway | Install the logs' rotation",
        "Gateway | Rotate the logs",
        "Gateway | Create the directory of what keys have used",
        "Gateway | Install the configuration",
        "Gateway | Install the kernel's settings",
        "Gateway | Run the kernel as declared",
        "Gateway | Install the limit of connections",
        "Gateway | Limit connections at boot",
        "Gateway | Limit connections now",
        RUN,
        "Gateway | Install the exporters' drop-ins",
        "Gateway | Install the exporters",
        "Gateway | Run prometheus-nginx-exporter",
        "Gateway | Run prometheus-node-exporter",
        "Gateway | Install the metrics of keys",
        "Gateway | Run the metrics of keys",
    ]


def test_package_never_starts_its_own_site() -> None:
    """Masked before, unmasked after, whatever apt said; and apt's own status is what counts."""
    [line] = [
        line
        for line in from_bare("two hosts").lines("edge")
        if "nginx.service" in line and " install " in line
    ]
    parts = [part.strip() for part in line.split(";")]
    assert parts[0] == "systemctl mask --runtime --quiet nginx.service"
    assert "apt-get" in parts[1]
    assert parts[2:] == [
        "rc=$?",
        "systemctl unmask --runtime --quiet nginx.service",
        "exit $rc",
    ]


def test_only_missing_packages_are_installed(answers: dict[str, Answers]) -> None:
    answers["edge"][DebPackages] = lambda: {
        name: ["1"]
        for name in (
            "curl", "logrotate", "nftables", "procps", "prometheus-nginx-exporter",
            "prometheus-node-exporter", "python3",
        )
    }  # fmt: skip
    planned = plan(HOSTS, answers)
    assert planned.names("edge") == ["Gateway | Install nginx"]
    [install] = [line for line in planned.lines("edge") if " install " in line]
    assert "--no-install-recommends libnginx-mod-http-lua lua-cjson nginx ;" in install


def test_directory_of_the_keys_is_private_before_they_are_in_it() -> None:
    planned = from_bare("two hosts")
    private = planned.index("edge", "install -d -o root -g root -m 700 /etc/llm-fleet/gateway")
    assert private < planned.index("edge", r"install -D .* /etc/llm-fleet/gateway/declared\.lua")


def test_new_key_changes_the_tables_of_keys_only(
    answers: dict[str, Answers], secrets_store: Path
) -> None:
    hosts = {"gpu1": GPU, "edge": ("gateway", {**EDGE[1], "gateway_keys": ["team-a", "team-b"]})}
    planned = plan(hosts, answers)
    assert planned.order == ["edge: Gateway | Install the configuration"]
    files = {PurePosixPath(path).name: text for path, (text, _) in planned.files("edge").items()}
    assert set(files) == {"declared.lua"}
    [value] = secrets_of(secrets_store / "default", "gateway_key_team-b")
    entry = f'["{sha256(value.encode()).hexdigest()}"] = {{ ["name"] = "team-b" }}'
    assert entry in files["declared.lua"]
    assert value not in files["declared.lua"]


def test_backends_come_and_go(answers: dict[str, Answers], secrets_store: Path) -> None:
    store = SecretStore(secrets_store / "default")
    store.replace("gateway_backend_far", "sk-of-ours")
    backend = {"name": "far", "address": "https://far.example.com", "models": ["m"], "key": "far"}
    hosts = {"gpu1": GPU, "edge": ("gateway", {**EDGE[1], "gateway_backends": [backend]})}
    planned = plan(hosts, answers)
    files = {PurePosixPath(path).name: mode for path, (_, mode) in planned.files("edge").items()}
    assert set(files) == {"backends.conf", "declared.lua", "nginx.conf"}
    assert files["backends.conf"].mode == "600"
    assert "sk-of-ours" not in everything_shown(planned)
    assert "ca-certificates" in "\n".join(planned.lines("edge"))
    answers["edge"][Nameservers] = lambda: ()
    with pytest.raises(FleetError, match=r"gateway_backends: https://far\.example\.com.*resolv"):
        plan(hosts, answers)


def test_keys_of_backends_that_are_gone_go_too(answers: dict[str, Answers]) -> None:
    known = answers["edge"][File]
    answers["edge"][File] = lambda path: {"mode": 600} if path == GATEWAY_BACKENDS else known(path)
    planned = plan(HOSTS, answers)
    assert planned.order == [f"edge: Gateway | Remove {GATEWAY_BACKENDS}"]


def test_all_files_are_judged_together(answers: dict[str, Answers]) -> None:
    """One of them changed, and still nginx judges it beside the one that it will meet."""
    known = answers["edge"][FileStates]
    answers["edge"][FileStates] = lambda paths: {
        path: state for path, state in known(paths).items() if not path.endswith("/declared.lua")
    }
    step = plan(HOSTS, answers).step("edge", "Gateway | Install the configuration")
    staged = [line for line in step.lines if line.startswith("cat > ")]
    assert [line.rsplit("/", 1)[-1] for line in staged] == [
        "drained",
        "served",
        "gateway_fields.lua",
        *(PurePosixPath(path).name for path in GATEWAY_PROGRAMS),
        "idle",
        "nginx.conf",
        "declared.lua",
        "tls.crt",
        "tls.key",
    ]
    installed = [line for line in step.lines if line.startswith("install -D")]
    assert [re.findall(r"/([^/ ]+)\.new \|\|", line)[0] for line in installed] == ["declared.lua"]


@pytest.mark.parametrize(
    ("state", "changed", "verb"),
    [
        ({}, "nginx", "reload"),
        ({}, "declared", "reload"),
        ({}, "llm-fleet", "restart"),
        ({}, "llm-fleet declared", "restart"),
        ({"needs_daemon_reload": True}, "", "restart"),
        ({"active_state": "inactive"}, "", "start"),
        ({"active_state": "activating"}, "", "start"),
        ({"active_state": "failed"}, "llm-fleet", "restart"),
    ],
    ids=[
        "configuration",
        "keys",
        # systemd forgets NeedDaemonReload at the next reload, whoever asks for it.
        "drop-in that systemd has read",
        "drop-in and keys",
        "drop-in that systemd has not read",
        "stopped",
        "on its way",
        "failed",
    ],
)
def test_running_state_decides(
    answers: dict[str, Answers], state: dict[str, Any], changed: str, verb: str
) -> None:
    """No file is written by this run: an earlier one died before its restart."""
    planned = plan(HOSTS, with_nginx(answers, replace(RUNNING, **state), changed))
    assert planned.names("edge") == [RUN]
    lines = planned.lines("edge")
    assert [line for line in lines if f"systemctl {verb} nginx.service" in line]
    [health] = [line for line in lines if "https://10.0.0.2:8434/healthz" in line]
    assert "journalctl" in health


@pytest.mark.parametrize(
    "state", [{"needs_daemon_reload": True}, {"active_state": "inactive"}], ids=["stale", "stopped"]
)
def test_systemd_reads_the_drop_in_before_the_start(
    answers: dict[str, Answers], state: dict[str, Any]
) -> None:
    lines = plan(HOSTS, with_nginx(answers, replace(RUNNING, **state))).lines("edge")
    assert lines[0] == "systemctl daemon-reload"
    assert any(re.search("systemctl (re)?start nginx.service", line) for line in lines[1:])


def test_unit_that_systemd_would_delete_is_refused(answers: dict[str, Answers]) -> None:
    """systemd deletes the file of a transient unit with it: by then the one in /etc."""
    planned = plan(HOSTS, with_nginx(answers, replace(RUNNING, is_transient=True)))
    [line] = planned.step("edge", RUN).lines
    assert "nginx.service was started by systemd-run" in line
    assert line.endswith("exit 1")


def test_disabled_unit_is_enabled_without_a_restart(answers: dict[str, Answers]) -> None:
    planned = plan(HOSTS, with_nginx(answers, replace(RUNNING, file_state="disabled")))
    lines = [line for line in planned.lines("edge") if "systemctl" in line]
    assert lines[0] == "systemctl enable --quiet nginx.service"
    assert not [line for line in lines if re.search(r"systemctl (re)?(start|load)", line)]


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("private", "https://10.0.0.2:8434/healthz"),
        ("any", "https://127.0.0.1:8434/healthz"),
        ("loopback", "https://127.0.0.1:8434/healthz"),
    ],
)
def test_health_is_asked_where_the_door_is(
    answers: dict[str, Answers], listen: str, url: str
) -> None:
    hosts = {"gpu1": GPU, "edge": ("gateway", {**EDGE[1], "gateway_listen": listen})}
    stopped = with_nginx(answers, replace(RUNNING, active_state="inactive"))
    assert [line for line in plan(hosts, stopped).lines("edge") if url in line]


def test_host_with_other_sites_is_refused(answers: dict[str, Answers]) -> None:
    sites = ["/etc/nginx/sites-enabled/default", "/etc/nginx/sites-enabled/shop"]
    edge = answers["edge"] | {ForeignFiles: lambda patterns: sites, FileStates: lambda paths: {}}
    with pytest.raises(FleetError, match=r"other sites here \(/etc/nginx/sites-enabled/shop\)"):
        plan(HOSTS, {**answers, "edge": edge})


def test_servers_with_other_names_get_requests_until_their_turn() -> None:
    """From one server a host to several: no host is out at the gateway's own step."""
    gpus = {
        f"gpu{n}": (
            "gpu",
            {
                **GPU[1],
                "private_address": f"10.0.0.1{n}",
                "ollama_instances": [
                    {"name": "a", "port": 11434, "gpus": [0]},
                    {"name": "b", "port": 11435, "gpus": [1]},
                ],
            },
        )
        for n in (1, 2)
    }
    edge = bare() | {ServedServers: lambda: ("@fake/gpu1", "@fake/gpu2")}
    written = plan({**gpus, "edge": EDGE}, {"gpu1": bare(), "gpu2": bare(), "edge": edge}).files(
        "edge"
    )
    idle, _ = written[GATEWAY_IDLE]
    assert len(idle.splitlines()) == 1
    served, _ = written[GATEWAY_SERVED]
    assert served.splitlines()[1:] == [
        f"@fake/{name}" for name in ("gpu1/a", "gpu1/b", "gpu2/a", "gpu2/b")
    ]
