"""A host that somebody runs containers on becomes the declared one, and keeps them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import BIN, ROOT, LabUnderTest

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/containers.py")
RUN = "Docker | Run Docker as declared"
MERGE = "Docker | Merge the configuration"
# What an operator had before this project came: Docker without live-restore, and a network.
BY_HAND = '{"bip": "10.99.0.1/24", "log-opts": {"labels": "team"}}'
IMAGE = """set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends \
    busybox-static curl docker.io docker-cli gpg python3 >/dev/null
mkdir -p /srv/image/bin
cp /bin/busybox /srv/image/bin
for name in cat env httpd ls sh sleep; do ln -sf busybox /srv/image/bin/$name; done
tar -C /srv/image -c . | docker import - lab/busybox:1 >/dev/null
docker run -d --name stays --restart unless-stopped -p 127.0.0.1:8090:80 lab/busybox:1 \
    httpd -f -h /bin >/dev/null
"""
# Neither the machine nor its nspawn has a GPU: the folders that the facts read are laid over /sys.
GPU = """set -e
mkdir -p /run/bus/pci/0000:17:00.0 /run/bus/module/nvidia
echo 0x10de > /run/bus/pci/0000:17:00.0/vendor
echo 0x2330 > /run/bus/pci/0000:17:00.0/device
echo 0x030200 > /run/bus/pci/0000:17:00.0/class
mount --bind /run/bus/pci /sys/bus/pci/devices
"""
# Debian's own open module has a name that the toolkit does not look for.
DRIVER = """set -e
echo 580.178.04 > /run/bus/module/nvidia/version
mount -o remount,rw /sys
mkdir -p /sys/module
mount -o remount,ro /sys
mount --bind /run/bus/module /sys/module
printf '#!/bin/sh\\n' > /usr/bin/nvidia-smi
chmod 755 /usr/bin/nvidia-smi
mkdir -p /lib/modules/$(uname -r)
echo updates/dkms/nvidia-current-open.ko: > /lib/modules/$(uname -r)/modules.dep
"""


class Docker:
    """The host, and its containers as one would look at them."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.declared: dict[str, Any] = {}

    def ssh(self, command: str) -> str:
        """Standard output of a command on the host, which must succeed."""
        return self.lab.ssh("gpu1", command)

    def deploy(self, **settings: Any) -> list[str]:
        """Converge with `settings`; the operations that changed something."""
        return list(self.lab.deploy(inventory=INVENTORY, **self._with(settings)))

    def refused(self, **settings: Any) -> str:
        """What a deploy says that must fail."""
        result = self.lab.pyinfra("-y", inventory=INVENTORY, check=False, **self._with(settings))
        assert result.returncode != 0, "not refused"
        return result.stdout + result.stderr

    def failing(self, **settings: Any) -> list[str]:
        """The claims that fail."""
        return list(self.lab.failing(inventory=INVENTORY, **self._with(settings)))

    def _with(self, settings: dict[str, Any]) -> dict[str, str]:
        return {"LAB_SETTINGS": json.dumps(self.declared | settings)}

    @property
    def container(self) -> str:
        """The process of the container, when it started, and that it serves."""
        served = self.ssh("curl -fsS -o /dev/null -w '%{http_code}' http://127.0.0.1:8090/busybox")
        assert served == "200"
        return self.ssh("docker inspect -f '{{.State.Pid}} {{.State.StartedAt}}' stays")

    @property
    def daemon(self) -> str:
        """The daemon's process and start."""
        return self.ssh("systemctl show -p InvocationID -p MainPID docker.service")

    @property
    def config(self) -> dict[str, Any]:
        """daemon.json."""
        config: dict[str, Any] = json.loads(self.ssh("cat /etc/docker/daemon.json"))
        return config


@pytest.fixture(scope="module")
def docker(containers_lab: LabUnderTest) -> Docker:
    """The host after its first deploy, which found a running container."""
    docker = Docker(containers_lab)
    docker.ssh(f"mkdir -p /etc/docker; echo '{BY_HAND}' > /etc/docker/daemon.json")
    docker.ssh(IMAGE)
    before, daemon = docker.container, docker.daemon
    # Docker's own check passes these, and the daemon would then not start.
    said = docker.refused()
    assert "log-opts: labels: Docker does not start with it under" in said
    assert (docker.container, docker.daemon) == (before, daemon)
    docker.declared = {"docker_log_driver": "json-file"}
    changed = docker.deploy()
    assert "Docker | Keep containers through the restart" in changed
    assert docker.daemon != daemon
    assert docker.container == before, "the first deploy took a container down"
    return docker


@pytest.fixture
def healed(docker: Docker) -> Iterator[Docker]:
    """The host, for a test that breaks it: the next deploy must repair it."""
    yield docker
    docker.deploy()
    assert docker.failing() == []


def test_declared_holds_and_what_was_there_stays(docker: Docker) -> None:
    assert docker.failing() == []
    assert docker.config["bip"] == "10.99.0.1/24"
    assert docker.config["log-opts"] == {"labels": "team", "max-size": "10m", "max-file": "5"}
    assert docker.ssh("ip -4 -o address show docker0").split()[3] == "10.99.0.1/24"


def test_second_deploy_changes_and_restarts_nothing(docker: Docker) -> None:
    before = docker.daemon, docker.container
    assert docker.deploy() == []
    assert (docker.daemon, docker.container) == before


def test_restarts_keep_the_container_running(docker: Docker) -> None:
    """More of them than Docker's unit allows in a minute, and back again."""
    container = docker.container
    for number in (6, 7, 8, 5):
        daemon = docker.daemon
        assert docker.deploy(docker_log_max_files=number) == [MERGE, RUN]
        assert docker.daemon != daemon
    assert docker.container == container


def test_setting_that_is_declared_no_more_is_removed(docker: Docker) -> None:
    docker.deploy(docker_registry_mirrors=["http://upstream.lab:5000"])
    assert docker.config["registry-mirrors"] == ["http://upstream.lab:5000"]
    assert docker.deploy() == [MERGE, RUN]
    assert "registry-mirrors" not in docker.config
    assert docker.config["bip"] == "10.99.0.1/24"


# The last not by itself: the unit has it on its command line too.
_REFUSED = {
    '{"no-such-key": true}': "don't match any configuration option: no-such-key",
    '{"bip": }': "/etc/docker/daemon.json is no JSON",
    '{"hosts": ["tcp://0.0.0.0:2375"]}': "whoever reaches it is root here",
    '{"hosts": ["unix:///run/other.sock"]}': "both as a flag and in the configuration file",
}


def test_configuration_that_docker_refuses_never_reaches_it(docker: Docker) -> None:
    before = docker.daemon, docker.container
    docker.ssh("cp -p /etc/docker/daemon.json /root/good")
    for text, words in _REFUSED.items():
        docker.ssh(f"echo '{text}' > /etc/docker/daemon.json")
        assert words in docker.refused()
        assert docker.ssh("cat /etc/docker/daemon.json") == text
        assert (docker.daemon, docker.container) == before
    docker.ssh("mv /root/good /etc/docker/daemon.json")
    # It was started with that very content.
    assert docker.deploy() == []


def test_run_that_died_between_upload_and_restart_is_finished(healed: Docker) -> None:
    container, daemon = healed.container, healed.daemon
    healed.ssh(
        "mkdir -p /run/systemd/system/docker.service.d && printf '[Unit]\\nRefuseManualStop=yes\\n'"
        " > /run/systemd/system/docker.service.d/dies.conf && systemctl daemon-reload"
    )
    healed.refused(docker_log_max_files=9)
    healed.ssh("rm -r /run/systemd/system/docker.service.d && systemctl daemon-reload")
    assert healed.config["log-opts"]["max-file"] == "9"
    assert healed.daemon == daemon
    assert healed.deploy(docker_log_max_files=9) == [RUN]
    assert healed.daemon != daemon
    assert healed.container == container


def test_other_data_root_does_not_lose_containers(docker: Docker) -> None:
    before = docker.daemon, docker.container
    said = docker.refused(docker_data_root="/srv/docker")
    assert "1 containers are in /var/lib/docker, and /srv/docker would start without" in said
    assert (docker.daemon, docker.container) == before


def test_link_to_the_data_root_is_where_it_leads(healed: Docker) -> None:
    before = healed.container
    healed.ssh("ln -s /var/lib/docker /srv/docker")
    assert healed.deploy(docker_data_root="/srv/docker")
    assert healed.failing(docker_data_root="/srv/docker") == []
    assert healed.deploy(docker_data_root="/srv/docker") == []
    assert healed.container == before
    healed.deploy()
    healed.ssh("rm /srv/docker")


_MEMBERS = "The group docker, whose members are root here, has exactly the declared ones"
_SOCKET = "Docker's socket is root's and its group's alone"
_TCP = "Docker listens on no TCP port, and leaves the firewall its hold on containers"
_ACTIVE = (
    "Docker is active, starts at boot, and runs the installed daemon with its present settings"
)
_CONFIG = "daemon.json has every declared value, and nothing that was declared before"
_RUNNING = "The daemon says of itself what is declared: logs, live-restore, root, mirrors, CDI"


@pytest.mark.parametrize(
    ("damage", "claims"),
    [
        ("gpasswd -a ops docker", {_MEMBERS}),
        ("systemctl disable docker.service", {_ACTIVE}),
        ("echo >> /etc/docker/daemon.json", {_ACTIVE}),
        (
            'echo \'{"bip": "10.99.0.1/24"}\' > /etc/docker/daemon.json;'
            " systemctl reload docker; sleep 1; systemctl restart docker; docker start stays",
            {_ACTIVE, _CONFIG, _RUNNING},
        ),
    ],
    ids=["member", "disabled", "changed", "overwritten"],
)
def test_damage_is_seen_and_repaired(healed: Docker, damage: str, claims: set[str]) -> None:
    healed.ssh(damage)
    assert set(healed.failing()) == claims


@pytest.mark.parametrize(
    ("damage", "repair", "claim"),
    [
        ("chmod 666 /run/docker.sock", "chmod 660 /run/docker.sock", _SOCKET),
        (
            # A process of that name: a second real daemon would take the first one's bridge away.
            "cp $(readlink -f /usr/bin/python3) /run/dockerd; systemd-run --quiet --unit open"
            " --setenv PYTHONHOME=/usr /run/dockerd -m http.server --bind 127.0.0.1 2375;"
            " n=0; until ss -ltn | grep -q :2375; do n=$((n+1)); [ $n -lt 50 ]; sleep .2; done",
            "systemctl stop open; rm -rf /run/dockerd",
            _TCP,
        ),
    ],
    ids=["socket", "port"],
)
def test_exposure_is_seen(docker: Docker, damage: str, repair: str, claim: str) -> None:
    """Not what a deploy repairs, but what a check must not miss."""
    docker.ssh(damage)
    failing = docker.failing()
    docker.ssh(repair)
    assert failing == [claim]
    assert docker.failing() == []


@pytest.fixture(scope="module")
def fingerprint(docker: Docker) -> str:
    """Of the repository's key; the versions in it are declared from now on."""
    program = (ROOT / "tests/lab/docker_repository.py").read_text()
    result = subprocess.run(
        [BIN / "lab", "ssh", "gpu1", "python3", "-"],
        input=program, capture_output=True, text=True, check=False, cwd=ROOT,
        env=os.environ | {"LLM_FLEET_LAB_ID": docker.lab.id},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    fingerprint, engine, _, containerd, compose = result.stdout.split()
    docker.declared |= {
        "docker_source": "docker",
        "docker_repository_url": "http://127.0.0.1:9000",
        "docker_repository_fingerprint": fingerprint,
        "docker_version": engine,
        "docker_containerd_version": containerd,
        "docker_compose_version": compose,
    }
    return fingerprint


class TestDockerCe:
    """Docker's own packages, on a host that had the distribution's."""

    def test_other_key_is_named_and_changes_nothing(self, docker: Docker, fingerprint: str) -> None:
        look = "find /etc/apt /etc/docker -type f | sort | xargs sha256sum; dpkg -l | sha256sum"
        docker.ssh("command -v gpg")
        before = docker.ssh(look), docker.daemon, docker.container
        said = docker.refused(docker_repository_fingerprint="AB" * 20)
        assert f"has the fingerprint {fingerprint}, expected is {'AB' * 20}: not trusted" in said
        assert (docker.ssh(look), docker.daemon, docker.container) == before

    def test_takes_the_place_of_the_distributions(self, docker: Docker, fingerprint: str) -> None:
        container = docker.container
        changed = docker.deploy()
        assert "Docker | Trust Docker's repository" in changed
        assert RUN in changed
        assert docker.container == container
        assert docker.failing() == []
        assert docker.deploy() == []
        assert docker.ssh("readlink /proc/$(pidof dockerd)/exe") == "/usr/bin/dockerd"
        assert fingerprint in docker.ssh("gpg --show-keys /etc/apt/keyrings/llm-fleet-docker.gpg")

    def test_version_is_held(self, docker: Docker) -> None:
        held = docker.ssh("apt-mark showhold").split()
        assert held == ["containerd.io", "docker-ce", "docker-ce-cli", "docker-compose-plugin"]
        docker.ssh("apt-mark unhold docker-ce")
        assert len(docker.failing()) == 1
        assert docker.deploy() == [f"Docker | Install Docker {docker.declared['docker_version']}"]
        assert docker.failing() == []

    def test_compose_runs_a_stack(self, docker: Docker) -> None:
        stack = "services: {a: {image: 'lab/busybox:1', command: sleep 600}}"
        docker.ssh(f'mkdir -p /srv/stack && echo "{stack}" > /srv/stack/compose.yaml')
        docker.ssh("cd /srv/stack && docker compose up -d --quiet-pull && docker compose ps -q")
        assert docker.ssh("cd /srv/stack && docker compose ps -q") != ""
        docker.ssh("cd /srv/stack && docker compose down -t 1")


class TestToolkit:
    """NVIDIA's container toolkit, on the same host, which gets a GPU and then its driver."""

    LIST = "Container toolkit | Trust NVIDIA's repository"

    def test_host_without_a_gpu_is_left_alone(self, docker: Docker) -> None:
        assert (
            docker.ssh("ls /usr/bin/nvidia-ctk /etc/apt/keyrings/*nvidia* 2>&1 || true").count(
                "No such file"
            )
            == 2
        )

    def test_other_key_changes_nothing(self, docker: Docker) -> None:
        docker.ssh(GPU)
        before = docker.ssh("find /etc/apt -type f | sort | xargs sha256sum")
        expected = "C95B321B61E88C1809C4F759DDCAE044F796ECB0"
        said = docker.refused(toolkit_repository_fingerprint=expected)
        assert f"expected is {expected}: not trusted" in said
        assert docker.ssh("find /etc/apt -type f | sort | xargs sha256sum") == before

    def test_without_a_driver_it_is_installed_and_the_check_says_why(self, docker: Docker) -> None:
        # The list of old instructions names the same repository without a key.
        url = docker.lab.state["upstream"]["url"]
        docker.ssh(
            f"echo 'deb {url}/libnvidia-container/stable/deb/amd64 /'"
            " > /etc/apt/sources.list.d/nvidia-docker.list"
        )
        assert self.LIST in docker.deploy()
        assert docker.ssh("ls /etc/apt/sources.list.d/nvidia-docker.list 2>&1 || true").endswith(
            "No such file or directory"
        )
        assert docker.deploy() == []
        [claim] = docker.failing()
        assert claim.startswith("CDI describes every GPU")

    def test_with_a_driver_containers_get_the_gpu(self, docker: Docker) -> None:
        docker.ssh(DRIVER)
        # As at a boot: the toolkit's own unit may have been quicker.
        docker.deploy()
        assert docker.failing() == []
        assert docker.deploy() == []
        seen = docker.ssh("docker run --rm --device nvidia.com/gpu=all lab/busybox:1 ls /dev")
        assert "nvidia0" in seen
        env = docker.ssh("docker run --rm --device nvidia.com/gpu=0 lab/busybox:1 env")
        assert "NVIDIA_VISIBLE_DEVICES=void" in env

    def test_lost_specification_is_written_again(self, docker: Docker) -> None:
        docker.ssh("rm /var/run/cdi/nvidia.yaml")
        assert len(docker.failing()) == 1
        assert docker.deploy() == ["Container toolkit | Provide the GPUs by CDI"]
        assert docker.failing() == []

    def test_runtime_comes_and_goes_with_its_setting(self, docker: Docker) -> None:
        container, before = docker.container, docker.config
        changed = docker.deploy(toolkit_runtime=True)
        assert changed == [
            "Container toolkit | Set the runtime nvidia",
            "Container toolkit | Run Docker as configured",
        ]
        assert docker.deploy(toolkit_runtime=True) == []
        assert docker.failing(toolkit_runtime=True) == []
        assert docker.config["runtimes"]["nvidia"]["path"] == "nvidia-container-runtime"
        docker.ssh("docker run --rm --runtime=nvidia lab/busybox:1 ls")
        assert docker.deploy() == changed
        assert docker.config == before
        assert docker.container == container

    def test_other_version_moves_all_four(self, docker: Docker) -> None:
        step = ["Container toolkit | Install the toolkit 1.19.1-1"]
        assert docker.deploy(toolkit_version="1.19.1-1") == step
        assert docker.failing(toolkit_version="1.19.1-1") == []
        assert len(docker.failing()) == 1
        assert docker.deploy() == ["Container toolkit | Install the toolkit 1.20.0-1"]
        assert docker.failing() == []
