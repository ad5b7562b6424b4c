"""Ollama in a container under a unit, beside one that systemd runs, on a host that shows a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import BIN, ROOT, LabUnderTest, _lab

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/gpu.py")
UUIDS = [f"GPU-5a3f1c00-0000-4000-8000-{index:012}" for index in range(2)]
C: dict[str, Any] = {"name": "c", "port": 11434, "gpus": [0], "runtime": "docker"}
S: dict[str, Any] = {"name": "s", "port": 11435, "gpus": [UUIDS[1]]}
CLOSED = "The container writes models and home only, has no capability, and no GPU but its own"


class Containers:
    """The host with Docker, and the image in its own registry."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        version = lab.state["upstream"]["ollama_version"]
        url = f"{lab.state['upstream']['url']}/ollama/ollama/releases/download"
        result = subprocess.run(
            [BIN / "lab", "ssh", "gpu1", "bash", "-s", version, url],
            input=(ROOT / "tests/lab/ollama_image.sh").read_text(),
            capture_output=True, text=True, check=False, cwd=ROOT,
            env=os.environ | {"LLM_FLEET_LAB_ID": lab.id},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        self.image = result.stdout.strip()
        # The toolkit's unit looks below the kernel that runs, which the lab's uname is not.
        lab.ssh(
            "gpu1", "mkdir -p /lib/modules; ln -sfn $(uname -r) /lib/modules/$(/usr/bin/uname -r)"
        )

    def ssh(self, command: str) -> str:
        """Standard output of a command on the host, which must succeed."""
        return self.lab.ssh("gpu1", command)

    def deploy(self, *instances: dict[str, Any], **settings: Any) -> dict[str, list[str]]:
        """Converge with `instances`; the operations that changed something."""
        return self.lab.deploy(inventory=INVENTORY, **self._with(instances, settings))

    def refused(self, *instances: dict[str, Any], **settings: Any) -> str:
        """What a deploy says that must fail."""
        result = self.lab.pyinfra(
            "-y", inventory=INVENTORY, check=False, **self._with(instances, settings)
        )
        assert result.returncode != 0, "not refused"
        return result.stdout + result.stderr

    def failing(self, *instances: dict[str, Any]) -> set[str]:
        """The claims that fail."""
        return set(self.lab.failing(inventory=INVENTORY, **self._with(instances, {})))

    def _with(self, instances: tuple[Any, ...], settings: dict[str, Any]) -> dict[str, str]:
        declared = {
            "ollama_instances": list(instances),
            "ollama_models": [{"name": "gpt-oss:20b", "load": True}],
            "ollama_image": self.image,
            "docker_enabled": True,
            "docker_source": "distribution",
        }
        return {"LAB_SETTINGS": json.dumps(declared | settings)}

    def chat(self) -> str:
        """An answer through the gateway."""
        result = subprocess.run(
            [BIN / "fleet", "chat", INVENTORY, "What is the capital of France?"],
            cwd=ROOT,
            env={
                "LLM_FLEET_LAB_ID": self.lab.id,
                "PATH": "/usr/bin:/bin",
                **self._with((C,), {}),
            },
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    @property
    def container(self) -> str:
        """The container's identity, and when it started."""
        return self.ssh("docker inspect -f '{{.Id}} {{.State.StartedAt}}' ollama-c")

    def wait(self, path: str = "api/version") -> None:
        """Until the container's server answers on the host."""
        address = self.lab.state["hosts"]["gpu1"]["address"]
        self.ssh(
            f"n=0; until curl -fsS http://{address}:11434/{path}; do n=$((n + 1));"
            " [ $n -lt 60 ] || exit 1; sleep 1; done"
        )


@pytest.fixture(scope="module")
def host() -> Iterator[Containers]:
    """A container alone, from bare: the model is pulled through it."""
    for lab in _lab("contained", "--hosts", "2", "--gpu", "gpu1=8xh100"):
        host = Containers(lab)
        assert host.deploy(C)
        yield host


@pytest.fixture
def healed(host: Containers) -> Iterator[Containers]:
    """The container alone, for a test that breaks it: the next deploy must repair it."""
    yield host
    host.deploy(C)
    assert host.failing(C) == set()


def test_container_answers_and_a_second_run_changes_nothing(host: Containers) -> None:
    assert host.failing(C) == set()
    assert "Paris" in host.chat()
    before = host.container
    assert host.deploy(C) == {}
    assert host.container == before
    assert host.ssh("ls /opt/ollama 2>/dev/null; true") == "", "no release where none runs"


def test_it_is_given_its_gpu_and_no_other(host: Containers) -> None:
    """The lab's CDI gives a null device under the GPU's name."""
    users = host.ssh("docker top ollama-c -o pid,user | awk 'NR > 1 { print $2 }' | sort -u")
    assert users == "ollama"
    pid = host.ssh("docker inspect -f '{{.State.Pid}}' ollama-c")
    devices = host.ssh(f"ls /proc/{pid}/root/dev").split()
    given = {name for name in devices if name.startswith("nvidia")}
    # Those two are every GPU's.
    assert given - {"nvidiactl", "nvidia-uvm"} == {"nvidia0"}
    environment = host.ssh(f"tr '\\0' '\\n' < /proc/{pid}/environ").splitlines()
    assert f"CUDA_VISIBLE_DEVICES={UUIDS[0]}" in environment


def test_published_port_is_the_gateways_alone(host: Containers) -> None:
    address = host.lab.state["hosts"]["gpu1"]["address"]
    probe = f"curl -s -o /dev/null -w '%{{http_code}}' --max-time 3 http://{address}:11434/"
    assert host.lab.ssh("edge", probe) == "200"
    assert subprocess.run(["sh", "-c", probe], capture_output=True, check=False).stdout == b"000"
    assert host.ssh("ss -Hltn | awk '{print $4}' | grep :11434") == f"{address}:11434"


def test_killed_container_comes_back(healed: Containers) -> None:
    before = healed.container
    healed.ssh("docker kill ollama-c")
    healed.wait()
    assert healed.container != before


def test_restarted_daemon_takes_it_along(healed: Containers) -> None:
    before = healed.container
    healed.ssh("systemctl restart docker")
    healed.wait()
    assert healed.container != before
    assert healed.ssh("docker ps -aq | wc -l") == "1"


def test_other_digest_is_refused_while_the_old_one_serves(host: Containers) -> None:
    before = host.container
    image, digest = host.image.split("@sha256:")
    said = host.refused(C, ollama_image=f"{image}@sha256:{digest[::-1]}")
    assert "manifest unknown" in said
    assert host.container == before
    assert host.failing(C) == set()


def test_what_does_not_start_is_tried_beside_what_runs(host: Containers) -> None:
    before = host.container
    said = host.refused(C, ollama_env={"GOMEMLIMIT": "lots"})
    assert "malformed GOMEMLIMIT" in said
    assert "Ollama does not answer with what is declared for ollama@c.service" in said
    assert host.container == before
    assert host.ssh("docker ps -a --format '{{.Names}}'") == "ollama-c"
    assert host.failing(C) == set()


def test_link_of_its_user_shows_it_nothing_of_the_host(healed: Containers) -> None:
    """It writes its home, and so what the next start of the container would be shown."""
    healed.ssh(
        "cd /var/lib/ollama && runuser -u ollama -- sh -c"
        " 'mv models mine && ln -s /var/tmp models' && systemctl restart ollama@c"
    )
    # The link leads to the container's own files, which it cannot write.
    healed.ssh(
        "n=0; until [ $(systemctl show --value -p NRestarts ollama@c) -gt 0 ]; do"
        " n=$((n + 1)); [ $n -lt 60 ] || exit 1; sleep 0.5; done"
    )
    assert healed.ssh("ls -d /var/tmp/blobs 2>/dev/null; true") == ""
    said = healed.refused(C)
    assert "the way there has a link of ollama, who could turn it at any time" in said
    healed.ssh("cd /var/lib/ollama && runuser -u ollama -- sh -c 'rm models && mv mine models'")


def test_container_that_is_less_closed_is_seen(healed: Containers) -> None:
    """Somebody tries something by hand, on every address and as root."""
    healed.ssh(
        "systemctl stop ollama@c;"
        f" docker run -d --name ollama-c -p 11434:11434 {healed.image} serve >/dev/null"
    )
    healed.wait()
    failing = healed.failing(C)
    healed.ssh("docker rm -f ollama-c")
    assert failing >= {
        CLOSED,
        "The unit is active and starts at boot",
        "TCP listens on exactly the declared addresses",
        "The running process has exactly the declared environment",
    }


def test_both_runtimes_side_by_side_and_back(healed: Containers) -> None:
    healed.deploy(C, S)
    assert healed.failing(C, S) == set()
    assert healed.deploy(C, S) == {}
    # The same name under the other runtime, and the container is gone.
    other = {**C, "runtime": "systemd"}
    healed.deploy(other)
    assert healed.failing(other) == set()
    assert healed.ssh("docker ps -aq | wc -l") == "0"


def test_reboot(host: Containers) -> None:
    """CDI has the GPU before the container is started, or it would not be."""
    started = host.ssh("stat -c %Y /proc/1")
    host.lab.ssh("gpu1", "systemctl reboot", check=False)
    deadline = time.monotonic() + 90
    while host.lab.ssh("gpu1", "stat -c %Y /proc/1", check=False) in ("", started):
        assert time.monotonic() < deadline, "gpu1 did not come back"
        time.sleep(0.5)
    host.ssh("systemctl is-system-running --wait || true")
    host.wait()
    assert host.failing(C) == set()
    assert host.deploy(C) == {}
