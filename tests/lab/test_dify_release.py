"""The release's own compose file, untouched, on a real host: what a person with Docker would get.

Slow, and with `make test-dify` only. The images are the lab's (lab/dify), from its registry as from
a mirror of Docker Hub; PostgreSQL, Redis, nginx, squid and Docker are real, and so is the answer.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from lab import processes, state
from tests.lab.conftest import LabUnderTest, _lab
from tests.lab.upstream.dify_console import (
    CHAT_CONFIG,
    CREDENTIALS,
    GRAPH,
    MODELS,
    OWNER,
    PLUGIN,
    Console,
    credentials,
    dsl,
    events,
    question,
    service,
)  # fmt: skip
from tests.lab.upstream.rig import MODEL, until

pytestmark = [pytest.mark.slow, pytest.mark.ci]

HOST = "dify1"
INSTALL = """set -e
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends \
    curl docker.io docker-cli docker-compose python3 zstd >/dev/null
echo '{"registry-mirrors": ["%s"]}' > /etc/docker/daemon.json
systemctl restart docker
"""
# Ollama on the host itself, as a person would have started it. Its runner's stand-in is Python.
OLLAMA = """set -e
mkdir -p /opt/ollama && cd /opt/ollama
curl -fsS %(url)s/ollama/ollama/releases/download/v%(version)s/ollama-linux-amd64.tar.zst |
    tar --zstd -x
systemd-run --quiet --unit ollama --setenv=HOME=/root --setenv=OLLAMA_HOST=0.0.0.0 \
    /opt/ollama/bin/ollama serve
until curl -fsS -o /dev/null http://127.0.0.1:11434/api/version; do sleep .2; done
far=%(registry)s/library/%(model)s
curl -fsS http://127.0.0.1:11434/api/pull -d '{"model":"'$far'","insecure":true,"stream":false}'
curl -fsS http://127.0.0.1:11434/api/copy -d '{"source":"'$far'","destination":"%(model)s"}'
"""
RELEASE = """set -e
mkdir -p /srv/dify && cd /srv/dify
curl -fsSo ../dify.tar.gz %(url)s/langgenius/dify/archive/refs/tags/%(version)s.tar.gz
echo '%(sha256)s  ../dify.tar.gz' | sha256sum -c --quiet
tar xzf ../dify.tar.gz --strip-components=1
[ -e docker/.env ] || cp docker/.env.example docker/.env
"""
SERVICES = {
    "agent_backend", "agent_ssrf_proxy", "api", "api_websocket", "db_postgres",
    "init_permissions", "local_sandbox", "nginx", "plugin_daemon", "redis", "sandbox",
    "ssrf_proxy", "weaviate", "web", "worker", "worker_beat",
}  # fmt: skip
CHECKED = {"api", "db_postgres", "local_sandbox", "redis", "sandbox"}


@dataclass(frozen=True)
class Stack:
    """The containers of a release, and the address that they are published at."""

    lab: LabUnderTest

    @property
    def address(self) -> str:
        """The host's."""
        address: str = self.lab.state["hosts"][HOST]["address"]
        return address

    @property
    def console(self) -> Console:
        """A browser without cookies."""
        return Console(f"http://{self.address}")

    def ssh(self, command: str, *, check: bool = True) -> str:
        """Standard output of a command on the host."""
        return self.lab.ssh(HOST, command, check=check)

    def compose(self, words: str, *, check: bool = True) -> str:
        """`docker compose WORDS`."""
        return self.ssh(f"cd /srv/dify/docker && docker compose {words}", check=check)

    def unpack(self, version: str) -> None:
        """A release's folder over the one before; the environment as it is, or is shipped."""
        upstream = self.lab.state["upstream"]
        sha256 = upstream["dify"]["releases"][version]
        self.ssh(RELEASE % {"url": upstream["url"], "version": version, "sha256": sha256})

    @property
    def services(self) -> dict[str, Any]:
        """Each service's container, as Docker says."""
        lines = self.compose("ps -a --format json").splitlines()
        return {item["Service"]: item for item in map(json.loads, lines)}

    def answers(self) -> bool:
        """Whether the API answers through nginx."""
        try:
            return self.console.ask("GET", "setup").status_code == 200
        except requests.ConnectionError:
            return False


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """The release after `docker compose up`."""
    for lab in _lab("difyrelease", "--hosts", "1", "--dify"):
        upstream = lab.state["upstream"]
        stack = Stack(lab)
        stack.ssh(INSTALL % upstream["registry"])
        values = {"url": upstream["url"], "version": upstream["ollama_version"], "model": MODEL}
        stack.ssh(OLLAMA % (values | {"registry": upstream["url"].removeprefix("http://")}))
        stack.unpack("1.16.1")
        stack.compose("up -d --quiet-pull")
        yield stack


def registered(console: Console, stack: Stack) -> None:
    """The Ollama plugin installed from the upstream's package, and a model of it registered."""
    upstream = stack.lab.state["upstream"]
    plugin = upstream["dify"]["plugins"]["1.0.0"]
    url = upstream["url"].replace("upstream.lab", upstream["address"])
    package = requests.get(f"{url}/{plugin['path']}", timeout=10).content
    sent = console.ask("POST", f"{PLUGIN}/upload/pkg", files={"pkg": ("p", package)})
    assert sent.json()["unique_identifier"] == plugin["identifier"]
    install = {"plugin_unique_identifiers": [plugin["identifier"]]}
    task = console.ask("POST", f"{PLUGIN}/install/pkg", install).json()["task_id"]
    path = f"{PLUGIN}/tasks/{task}"
    until(lambda: console.get(path)["task"]["status"] == "success", "the task ends", 240)
    values = credentials(f"http://{stack.address}:11434")
    until(
        lambda: console.ask("POST", CREDENTIALS, values).status_code == 201,
        "the runtime takes credentials",
        60,
    )


def key_of(console: Console, mode: str, **parts: Any) -> str:
    """The key of an app that was just made."""
    made = console.ask("POST", "apps/imports", dsl("0.7.0", mode, **parts)).json()
    assert made["status"] == "completed", made
    if mode != "chat":
        body = {"marked_name": "v1", "marked_comment": ""}
        path = f"apps/{made['app_id']}/workflows/publish"
        assert console.ask("POST", path, body).status_code == 200
    token: str = console.ask("POST", f"apps/{made['app_id']}/api-keys").json()["token"]
    return token


def test_release_is_up_in_a_minute(stack: Stack) -> None:
    begun = time.monotonic()
    until(stack.answers, "the API answers", 240)

    def healthy() -> bool:
        return {n for n, item in stack.services.items() if item["Health"] == "healthy"} == CHECKED

    until(healthy, "every service with a check is healthy", 240)
    assert time.monotonic() - begun < 90
    assert set(stack.services) == SERVICES
    once = stack.services["init_permissions"]
    assert (once["State"], once["ExitCode"]) == ("exited", 0)
    others = {item["State"] for name, item in stack.services.items() if name != "init_permissions"}
    assert others == {"running"}


def test_digests_are_those_that_the_lab_names(stack: Stack) -> None:
    """What a deploy pins: each image by the digest in lab.json, pulled through the mirror."""
    named = stack.lab.state["upstream"]["images"]
    lines = stack.ssh("docker image ls --digests --format '{{.Repository}}:{{.Tag}} {{.Digest}}'")
    pulled = dict(line.split() for line in lines.splitlines())
    assert len(pulled) == 12
    assert pulled == {name: named[name] for name in pulled}
    stack.ssh(f"docker pull --quiet langgenius/dify-api@{named['langgenius/dify-api:1.17.1']}")


def test_registry_that_died_is_served_again(stack: Stack) -> None:
    lab = state.find(stack.lab.id)
    assert lab
    url = f"{stack.lab.state['upstream']['registry']}/v2/_catalog"
    processes.kill(processes.group(lab, "registry"))
    assert stack.ssh(f"curl -sS {url} 2>&1 || true").startswith("curl: (7)")
    assert "registry not running" in stack.lab.command("status").stdout
    stack.lab.command("up", "--hosts", "1", "--dify")
    assert "langgenius/dify-api" in stack.ssh(f"curl -fsS {url}")
    # It is read-only: nobody can put another image under a name.
    place = url.replace("_catalog", "evil/blobs/uploads/")
    assert stack.ssh(f"curl -s -o /dev/null -w '%{{http_code}}' -X POST {place}") == "405"


def test_debugging_port_is_open_to_everybody(stack: Stack) -> None:
    """The trap that a deploy has to close: published ports pass a firewall's input."""
    for port in (80, 5003):
        with socket.create_connection((stack.address, port), timeout=5):
            pass


def test_setup_to_chat(stack: Stack) -> None:
    """What the model says comes back from both, through nginx, the API, the worker and a plugin."""
    console = stack.console
    assert console.ask("POST", "setup", OWNER).status_code == 201
    assert console.login().status_code == 200
    registered(console, stack)
    (model,) = console.get(MODELS)["data"]
    assert model["model"] == MODEL
    chat = key_of(console, "chat", model_config=CHAT_CONFIG)
    answer = service(console.url, chat, "chat-messages", question())
    assert "Paris" in answer.json()["answer"]
    flow = key_of(console, "advanced-chat", workflow=GRAPH)
    streaming = question(response_mode="streaming")
    found = events(service(console.url, flow, "chat-messages", streaming))
    assert "Paris" in "".join(item.get("answer", "") for item in found)


def test_proxy_keeps_requests_from_private_addresses(stack: Stack) -> None:
    curl = "exec -T sandbox curl -s -o /dev/null -w '%{http_code}' -x http://ssrf_proxy:3128"
    url = f"http://{stack.address}:11434/"
    assert stack.compose(f"{curl} {url}") == "403"


def test_lost_private_key_is_seen_as_a_bad_gateway(stack: Stack) -> None:
    """Not at once: Redis has the key for a day."""
    console = stack.console
    assert console.login().status_code == 200
    folder = "/srv/dify/docker/volumes/app/storage"
    stack.ssh(f"mv {folder}/privkeys {folder}/away")
    assert console.ask("GET", MODELS).status_code == 200
    stack.compose("exec -T redis redis-cli -n 0 flushdb")
    assert console.ask("GET", MODELS).status_code == 502
    stack.ssh(f"mv {folder}/away {folder}/privkeys")
    assert models(console) == [MODEL]


def models(console: Console) -> list[str]:
    """What is registered; with the plugin's runtime not up the answer is a 500."""
    until(lambda: console.ask("GET", MODELS).status_code == 200, "the models are listed", 120)
    return [item["model"] for item in console.get(MODELS)["data"]]


def test_volumes_outlive_the_containers(stack: Stack) -> None:
    stack.compose("down")
    stack.compose("up -d --quiet-pull")
    until(stack.answers, "the API answers", 240)
    console = stack.console
    assert console.login().status_code == 200
    assert models(console) == [MODEL]


def test_upgrade_migrates(stack: Stack) -> None:
    stack.unpack("1.17.1")
    stack.compose("up -d --quiet-pull")
    # nginx remembers the address that the API had.
    stack.compose("restart nginx")
    until(stack.answers, "the new API answers", 240)
    console = stack.console
    assert console.login().status_code == 200
    assert console.get("version?current_version=1.16.1")["version"] == "1.17.1"
    assert models(console) == [MODEL]


def test_release_that_never_comes_up_leaves_a_database_without_a_way_back(stack: Stack) -> None:
    stack.unpack("1.17.2")
    stack.compose("up -d --quiet-pull")
    until(lambda: "ModuleNotFoundError" in stack.compose("logs api"), "the API fails", 240)
    assert not stack.answers()
    stack.unpack("1.17.1")
    stack.compose("up -d --quiet-pull")
    what = "the older release does not know the newer one's schema"
    until(lambda: "Can't locate revision" in stack.compose("logs api"), what, 240)
    assert not stack.answers()
