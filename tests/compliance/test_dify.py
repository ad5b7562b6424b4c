"""Dify runs as declared, with secrets of its own, and is answered by the fleet's models."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from fleet.dify import declared as dify
from fleet.dify.declared import dify_endpoint
from fleet.dify.facts import DifyPending
from fleet.dify.files import app_name, managed_files
from fleet.dify.paths import (
    DIFY_BACKUP_TIMER,
    DIFY_BACKUP_UNIT,
    DIFY_BOOT_UNIT,
    DIFY_CLIENT_CONFIG,
    DIFY_CLIENT_PROGRAM,
    DIFY_ROOT,
    DIFY_STACK_CONFIG,
    DIFY_STACK_PROGRAM,
)
from fleet.dify.settings import Dify
from fleet.kit.durations import seconds
from fleet.kit.facts.backups import NewestBackup
from fleet.kit.facts.files import FileStates

from .connection import Target
from .outcomes import Record, Say

_DAEMON = "plugin_daemon"
# The timer on the host asks once an hour.
_TIMER = 3600 + 600


def test_files(dify_host: Target) -> None:
    """Dify's settings and programs on the host are the declared ones, and its secrets root's."""
    files = managed_files(dify_host.declared, dify_host.fleet)
    states = dify_host.fact(FileStates, paths=[file.path for file in files])
    assert states == {file.path: file.state for file in files}
    assert dify_host.run("stat -c '%%a %%U' %s", DIFY_ROOT) == "700 root"


def test_containers(dify_host: Target, measured: Say, record: Record) -> None:
    """The containers are exactly those of the declared release, as it was started, and well."""
    pending = dify_host.fact(DifyPending, program=DIFY_STACK_PROGRAM, config=DIFY_STACK_CONFIG)
    containers = _containers(dify_host)
    measured(f"Dify {dify_host.declared[Dify].version}, {len(containers)} containers")
    record("versions", "Dify", dify_host.declared[Dify].version)
    assert pending == [], _evidence(dify_host, pending, _unwell(dify_host))
    # Docker's own start leaves nginx with the addresses of before.
    assert dify_host.testinfra.service(DIFY_BOOT_UNIT).is_enabled


def test_images(dify_host: Target, record: Record) -> None:
    """Every container runs the image with the declared digest, or one with an exact tag."""
    declared = dify_host.declared[Dify].images
    for name, item in _containers(dify_host).items():
        image, _, digest = item["Config"]["Image"].partition("@")
        record("digests", image, digest or item["Image"])
        assert digest == declared.get(image, ""), name
        assert digest or re.search(r":.*\d+\.\d+\.\d+", image), f"{name}: {image} can be moved"
        if digest:
            known = dify_host.run("docker image inspect -f '{{.RepoDigests}}' %s", item["Image"])
            assert digest in known, name


def test_published(dify_host: Target) -> None:
    """Nothing is published but Dify's pages, and at the declared address."""
    published = {
        (name, port, binding["HostIp"], int(binding["HostPort"]))
        for name, item in _containers(dify_host).items()
        for port, bindings in item["NetworkSettings"]["Ports"].items()
        for binding in bindings or []
    }
    endpoint = dify_endpoint(dify_host.declared)
    assert published == {("nginx", "80/tcp", endpoint.address, endpoint.port)}


def test_secrets(dify_host: Target) -> None:
    """No container has a secret that the release prints for everybody, and each has our own."""
    own = dify.SECRETS.of(dify_host.declared, dify_host.fleet)
    seen = set()
    for name, item in _containers(dify_host).items():
        for line in [*item["Config"]["Env"], *(item["Args"] or [])]:
            variable = line.partition("=")[0]
            public = [text for text in dify.PUBLIC_DEFAULTS if text in line]
            assert not public, f"{name}: {variable} is the release's default"
            seen |= {secret for secret, mine in own.items() if mine in line}
    # Dify keeps the owner's password as a hash, in its database.
    assert seen == set(own) - {"owner_password"}


def test_owner(dify_host: Target) -> None:
    """The owner's account is made: nobody who comes first can take it."""
    url = f"http://{dify_endpoint(dify_host.declared)}/console/api/setup"
    answer = json.loads(dify_host.run("curl -fsS --noproxy '*' --max-time 20 %s", url))
    assert answer["step"] == "finished"


def test_set_up(dify_host: Target) -> None:
    """Plugin, its upgrades, models, default model and sample apps are the declared ones."""
    pending = dify_host.fact(DifyPending, program=DIFY_CLIENT_PROGRAM, config=DIFY_CLIENT_CONFIG)
    said = dify_host.testinfra.run(
        "python3 %s check %s 2>&1", DIFY_CLIENT_PROGRAM, DIFY_CLIENT_CONFIG
    ).stdout
    assert pending == [], said


@pytest.mark.parametrize("role", dify.APPS)
def test_chat(dify_host: Target, role: str, measured: Say) -> None:
    """A chat through Dify is answered, whole and streamed, by its API and by its worker."""
    answer = _ask(dify_host, role, "blocking")
    whole = json.loads(answer)["answer"].strip()
    lines = _ask(dify_host, role, "streaming").splitlines()
    events = [json.loads(line[5:]) for line in lines if line.startswith("data:")]
    # An error comes inside a 200.
    errors = [event for event in events if event["event"] == "error"]
    assert not errors, _evidence(dify_host, [str(errors)], ["worker", "api"])
    assert events, "the stream has no event; is a worker up?"
    assert events[-1]["event"] in ("message_end", "workflow_finished")
    streamed = "".join(event["answer"] for event in events if event["event"] == "message").strip()
    assert whole, app_name(dify_host.declared, role)
    assert streamed
    measured(f"{role} {streamed[:40]!r}")


def test_only_the_plugin_daemon_reaches_ollama(dify_host: Target) -> None:
    """Ollama on this host is open to Dify's plugin daemon, and to no other container."""
    local = dify.local_server(dify_host.declared, dify_host.fleet)
    if local is None:
        pytest.skip("the fleet's gateway is on another host")
    address = (local.address, str(local.port))
    probe = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"
    reached = {
        name
        for name in (_DAEMON, "api", "worker")
        if dify_host.testinfra.run(
            "docker exec %s python3 -c %s %s %s", f"{dify.PROJECT}-{name}-1", probe, *address
        ).rc == 0
    }  # fmt: skip
    assert reached == {_DAEMON}


def test_backup(dify_host: Target, measured: Say) -> None:
    """The newest backup is whole, root's alone, and not older than declared."""
    declared = dify_host.declared[Dify]
    age = dify_host.fact(NewestBackup, directory=declared.backup_dir, prefix="dify")
    assert age is not None, dify_host.journal(DIFY_BACKUP_UNIT)
    assert age < seconds(declared.backup_every) + _TIMER, dify_host.journal(DIFY_BACKUP_UNIT)
    newest = dify_host.run(
        "cd %s && ls -t dify-*.tar | head -n 1 && stat -c '%%a %%U' dify-*.tar | sort -u",
        declared.backup_dir,
    ).splitlines()
    assert newest[1:] == ["600 root"]
    dify_host.run(
        "cd %s && sha256sum --check --strict %s", declared.backup_dir, f"{newest[0]}.sha256"
    )
    assert dify_host.testinfra.service(DIFY_BACKUP_TIMER).is_enabled
    assert dify_host.testinfra.service(DIFY_BACKUP_TIMER).is_running
    measured(f"{age / 3600:.1f} h")


def _ask(target: Target, role: str, mode: str) -> str:
    """What an app answers, asked on the host; its key goes over stdin."""
    name = dify.SECRETS.name(target.declared, f"app_{role}")
    key = target.fleet.secrets.read(name)
    assert key is not None, f"{name} is not in the secrets store; deploy"
    body = {
        "inputs": {}, "query": "What is the capital of France?", "user": "compliance",
        "response_mode": mode, "auto_generate_name": False,
    }  # fmt: skip
    values = {
        "url": f"http://{dify_endpoint(target.declared)}/v1/chat-messages",
        "header": f"Authorization: Bearer {key.get_secret_value()}",
        "data": json.dumps(body),
    }
    config = "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
    config += 'header = "Content-Type: application/json"\n'
    return target.run(
        "curl -sS --fail-with-body --no-buffer --noproxy '*' --max-time 300 --config -",
        stdin=config,
    )


def _containers(target: Target, *options: str) -> dict[str, Any]:
    """Service to what Docker says of its container; one-shot ones, which have ended, are left.

    `options` are of `docker ps`.
    """
    label = f"label=com.docker.compose.project={dify.PROJECT}"
    command = f"docker inspect $(docker ps --quiet {' '.join(options)} --filter %s)"
    listed = json.loads(target.run(command, label))
    return {item["Config"]["Labels"]["com.docker.compose.service"]: item for item in listed}


def _unwell(target: Target) -> list[str]:
    """The services whose container has failed, or is not healthy."""
    states = {name: item["State"] for name, item in _containers(target, "--all").items()}
    return [
        name
        for name, state in states.items()
        if state.get("Health", {}).get("Status", "healthy") != "healthy"
        or (state["Status"] != "running" and state["ExitCode"] != 0)
    ]


def _evidence(target: Target, reasons: list[str], services: list[str]) -> str:
    """The reasons, and the end of the logs of these services."""
    parts = ["; ".join(reasons)]
    for service in services[:3]:
        name = f"{dify.PROJECT}-{service}-1"
        parts.append(target.testinfra.run("docker logs --tail 20 %s 2>&1", name).stdout)
    return "\n".join(parts)
