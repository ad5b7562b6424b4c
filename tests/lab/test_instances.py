"""Several Ollama servers on one host that shows eight GPUs, behind a gateway."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.lab.conftest import BIN, ROOT, LabUnderTest, Result, _lab

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/gpu.py")
UUIDS = [f"GPU-5a3f1c00-0000-4000-8000-{index:012}" for index in range(8)]
A: dict[str, Any] = {"name": "a", "port": 11434, "gpus": [0, 1], "context_length": 2048}
B: dict[str, Any] = {"name": "b", "port": 11435, "gpus": [UUIDS[2]], "keep_alive": "-1"}
MODEL = {"name": "gpt-oss:20b", "load": True}
# All that systemd knows of Ollama's servers, and what starts the loader.
_UNITS = (
    "cd /etc/systemd/system && find . -name '*ollama*' | sort;"
    " systemctl list-units --all --plain --no-legend 'ollama*.service' | grep -v not-found"
    " | cut -d' ' -f1"
)
_SINGLE = [
    "./multi-user.target.wants/ollama.service",
    "./ollama-models-again.timer",
    "./ollama-models.service",
    "./ollama.service",
    "./ollama.service.wants",
    "./ollama.service.wants/ollama-models.service",
    "ollama-models.service",
    "ollama.service",
]
_TWO = [
    "./multi-user.target.wants/ollama-models.service",
    "./multi-user.target.wants/ollama@a.service",
    "./multi-user.target.wants/ollama@b.service",
    "./ollama-models-again.timer",
    "./ollama-models.service",
    "./ollama@a.service",
    "./ollama@b.service",
    "ollama-models.service",
    "ollama@a.service",
    "ollama@b.service",
]


class Servers:
    """The lab's only GPU host, deployed with instances."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab

    def ssh(self, command: str) -> str:
        """Standard output of a command on the host, which must succeed."""
        return self.lab.ssh("gpu1", command)

    def deploy(self, *instances: dict[str, Any]) -> dict[str, list[str]]:
        """Converge with `instances`; the operations that changed something."""
        return self.lab.deploy(inventory=INVENTORY, **_settings(*instances))

    def refused(self, *instances: dict[str, Any]) -> str:
        """What a deploy says that must fail."""
        result: Result = self.lab.pyinfra(
            "-y", inventory=INVENTORY, check=False, **_settings(*instances)
        )
        assert result.returncode != 0, "not refused"
        return result.stdout + result.stderr

    def failing(self, *instances: dict[str, Any]) -> set[str]:
        """The claims that fail."""
        return set(self.lab.failing(inventory=INVENTORY, **_settings(*instances)))

    def fleet(self, *args: Any) -> Result:
        """`fleet ARGS` for two instances."""
        return subprocess.run(
            [str(part) for part in (BIN / "fleet", *args)],
            cwd=ROOT,
            env={"LLM_FLEET_LAB_ID": self.lab.id, "PATH": "/usr/bin:/bin", **_settings(A, B)},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    @property
    def units(self) -> list[str]:
        """Files, links and units of Ollama's servers."""
        return self.ssh(_UNITS).split()

    def process(self, unit: str) -> str:
        """The main process of a unit, and when it started."""
        return self.ssh(f"systemctl show -p MainPID -p ExecMainStartTimestamp {unit}")

    def environment(self, unit: str) -> dict[str, str]:
        """The environment of a unit's running process."""
        pid = self.ssh(f"systemctl show --value -p MainPID {unit}")
        lines = self.ssh(f"tr '\\0' '\\n' < /proc/{pid}/environ").splitlines()
        return dict(line.split("=", 1) for line in lines)

    def loaded(self, port: int) -> list[str]:
        """The models in the memory of the server at `port`."""
        address = self.lab.state["hosts"]["gpu1"]["address"]
        answer = json.loads(self.ssh(f"curl -fsS http://{address}:{port}/api/ps"))
        return [model["name"] for model in answer["models"]]


def _settings(*instances: dict[str, Any]) -> dict[str, str]:
    settings = {"ollama_instances": list(instances), "ollama_models": [MODEL]}
    return {"LAB_SETTINGS": json.dumps(settings)}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Two instances from bare, by one run: their GPUs are told by the driver of this very run."""
    for lab in _lab("instances", "--hosts", "2", "--gpu", "gpu1=8xh100"):
        servers = Servers(lab)
        said = servers.refused(A, {**B, "gpus": [8]})
        assert "gpu1: ollama_instances: b: gpus = [8]: the host has no 8; it has 0000:17:" in said
        assert servers.ssh("ls -d /etc/llm-fleet /opt/ollama 2>/dev/null; true") == ""
        assert servers.deploy(A, B)
        yield servers


@pytest.fixture
def two(servers: Servers) -> Iterator[Servers]:
    """Two instances, for a test that changes that: the next deploy must bring them back."""
    yield servers
    servers.deploy(A, B)
    assert servers.failing(A, B) == set()
    assert servers.units == _TWO


def test_declared_holds_and_a_second_run_changes_nothing(servers: Servers) -> None:
    assert servers.failing(A, B) == set()
    assert servers.deploy(A, B) == {}
    assert servers.units == _TWO


def test_each_has_its_own_gpus_and_settings(servers: Servers) -> None:
    a, b = (servers.environment(f"ollama@{name}.service") for name in "ab")
    assert a["CUDA_VISIBLE_DEVICES"] == f"{UUIDS[0]},{UUIDS[1]}"
    assert b["CUDA_VISIBLE_DEVICES"] == UUIDS[2]
    assert (a["OLLAMA_CONTEXT_LENGTH"], a["OLLAMA_KEEP_ALIVE"]) == ("2048", "5m")
    assert ("OLLAMA_CONTEXT_LENGTH" in b, b["OLLAMA_KEEP_ALIVE"]) == (False, "-1")
    assert a["OLLAMA_MODELS"] == b["OLLAMA_MODELS"]


def test_model_is_pulled_once_and_warm_in_both(servers: Servers) -> None:
    assert servers.loaded(11434) == servers.loaded(11435) == ["gpt-oss:20b"]
    pulls = servers.ssh("journalctl -o cat -u 'ollama@*' | grep -c 'POST.*\"/api/pull\"'")
    assert pulls == "1"


def test_unit_opens_its_devices_and_no_other(servers: Servers) -> None:
    """Groups of DeviceAllow that cannot be resolved at the start are left out without a word.

    There is no driver behind the nodes of the lab: who is let through is told ENXIO.
    """
    servers.ssh("[ -e /dev/loop99 ] || mknod /dev/loop99 b 7 99")
    for name in "ab":
        group = servers.ssh(f"systemctl show --value -p ControlGroup ollama@{name}")
        said = servers.ssh(
            f"sh -c 'echo $$ > /sys/fs/cgroup{group}/cgroup.procs; for d in nvidia0 nvidiactl"
            " nvidia-uvm loop99; do head -c 1 /dev/$d; done' 2>&1 || true"
        ).splitlines()
        assert [line.rsplit(": ", 1)[1] for line in said] == [
            *["No such device or address"] * 3,
            "Operation not permitted",
        ]


def test_gateway_sends_to_both_and_goes_on_with_one(two: Servers) -> None:
    address = two.lab.state["hosts"]["gpu1"]["address"]
    url = f"http://{two.lab.state['hosts']['edge']['address']}:8434/v1/chat/completions"
    key = two.fleet("key", "show", INVENTORY, "lab").stdout.strip()

    def served(count: int) -> set[str]:
        before = len(two.lab.ssh("edge", "cat /var/log/llm-fleet/gateway.log").splitlines())
        for number in range(count):
            # Each a conversation of its own: one goes to one server.
            said = [{"role": "user", "content": f"{number}: hi"}]
            answer = requests.post(
                url, json={"model": "gpt-oss:20b", "messages": said, "max_tokens": 4},
                headers={"Authorization": f"Bearer {key}"}, timeout=60,
            )  # fmt: skip
            assert answer.status_code == 200, answer.text
        time.sleep(1.5)  # the log is written once a second
        lines = two.lab.ssh("edge", "cat /var/log/llm-fleet/gateway.log").splitlines()[before:]
        return {json.loads(line)["upstream"].split(", ")[-1] for line in lines}

    assert served(16) == {f"{address}:11434", f"{address}:11435"}
    two.ssh("systemctl stop ollama@b")
    assert served(4) == {f"{address}:11434"}


def test_drain_is_of_all_servers_of_a_host(servers: Servers) -> None:
    said = servers.fleet("drain", INVENTORY, "gpu1")
    assert "no other host to send requests for gpt-oss:20b to" in said.stderr
    assert servers.fleet("drain", INVENTORY, "gpu1", "--force").returncode == 0
    idle = servers.lab.ssh("edge", "grep -v '^#' /etc/llm-fleet/gateway/idle")
    assert idle.splitlines() == ["gpu1/a", "gpu1/b"]
    for unit in ("a", "b"):
        servers.ssh(f"systemctl restart ollama@{unit}")
    assert servers.fleet("undrain", INVENTORY, "gpu1").returncode == 0
    assert servers.loaded(11434) == servers.loaded(11435) == ["gpt-oss:20b"]
    assert servers.failing(A, B) == set()


def test_gpu_that_is_not_there_is_refused_with_what_is(servers: Servers) -> None:
    before = servers.process("ollama@a ollama@b"), servers.units
    said = servers.refused(A, {**B, "gpus": [UUIDS[2].replace("00002", "00009")]})
    assert "the host has no GPU-5a3f1c00-0000-4000-8000-000000000009; it has 0: NVIDIA" in said
    said = servers.refused(A, {**B, "gpus": [UUIDS[1]]})
    assert f"a and b both have {UUIDS[1]}; give each its own, or shared_gpus = True" in said
    assert (servers.process("ollama@a ollama@b"), servers.units) == before


def test_removed_instance_leaves_nothing_and_disturbs_nobody(two: Servers) -> None:
    before = two.process("ollama@a")
    two.deploy(A)
    assert two.units == [item for item in _TWO if "@b" not in item]
    assert two.ssh("ss -Hltn | grep -c :11435 || true") == "0"
    assert two.process("ollama@a") == before
    assert two.failing(A) == set()
    assert two.deploy(A) == {}


def test_changed_instance_is_restarted_alone(two: Servers) -> None:
    before = two.process("ollama@a")
    two.deploy(A, {**B, "gpus": [3, 4]})
    visible = two.environment("ollama@b")["CUDA_VISIBLE_DEVICES"]
    assert visible == f"{UUIDS[3]},{UUIDS[4]}"
    assert two.process("ollama@a") == before
    assert two.failing(A, {**B, "gpus": [3, 4]}) == set()


def test_back_to_a_single_server_and_forth(two: Servers) -> None:
    """The port is the same: who has it must be gone before the other one starts."""
    two.deploy()
    assert two.units == _SINGLE
    assert "CUDA_VISIBLE_DEVICES" not in two.environment("ollama.service")
    assert two.failing() == set()
    assert two.deploy() == {}


def test_run_that_died_on_the_way_is_finished(two: Servers) -> None:
    two.deploy()
    folder = "/run/systemd/system/ollama.service.d"
    two.ssh(
        f"mkdir -p {folder}; printf '[Unit]\\nRefuseManualStop=yes\\n' > {folder}/dies.conf;"
        " systemctl daemon-reload"
    )
    assert "ollama.service" in two.refused(A, B)
    assert "./ollama@a.service" in two.units, "it died after the units were laid down"
    two.ssh(f"rm -r {folder} && systemctl daemon-reload")
    two.deploy(A, B)
    assert two.units == _TWO


def test_server_that_nobody_declared_is_seen_and_removed(two: Servers) -> None:
    two.ssh(
        "cd /etc/systemd/system && sed s/:11435/:11439/ ollama@b.service > ollama@z.service &&"
        " systemctl daemon-reload && systemctl enable --quiet --now ollama@z"
    )
    assert two.failing(A, B) >= {"No Ollama unit but the declared ones is installed or runs"}


@pytest.mark.parametrize(
    ("damage", "claim"),
    [
        (
            "sed -i s/-000000000002/-000000000003/ /etc/systemd/system/ollama@b.service;"
            " systemctl daemon-reload; systemctl restart ollama@b",
            "The running process has exactly the declared environment",
        ),
        ("systemctl stop ollama@b", "The unit is active and starts at boot"),
        (
            "a=$(systemctl show --value -p Environment ollama@a | grep -o 'HOST=[0-9.:]*'); curl"
            ' -fsS ${a#HOST=}/api/generate -d \'{"model": "gpt-oss:20b", "keep_alive": 0}\'',
            "Models that are to stay in memory are there, pinned, and with the declared context",
        ),
    ],
    ids=["other GPU", "stopped", "unloaded"],
)
def test_damage_to_one_of_them_is_seen_and_repaired(two: Servers, damage: str, claim: str) -> None:
    two.ssh(damage)
    assert claim in two.failing(A, B)


def test_reboot(servers: Servers) -> None:
    """The device nodes are there before the units start, or they would be kept from the GPUs."""
    started = servers.ssh("stat -c %Y /proc/1")
    servers.lab.ssh("gpu1", "systemctl reboot", check=False)
    deadline = time.monotonic() + 90
    while servers.lab.ssh("gpu1", "stat -c %Y /proc/1", check=False) in ("", started):
        assert time.monotonic() < deadline, "gpu1 did not come back"
        time.sleep(0.5)
    servers.ssh("systemctl is-system-running --wait || true")
    assert servers.failing(A, B) == set()
    test_unit_opens_its_devices_and_no_other(servers)
    assert servers.deploy(A, B) == {}
