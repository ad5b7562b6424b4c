"""Open WebUI runs as declared, lets in whom it knows, and is answered by the fleet's models."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.gateway.declared import Access, gateway_of
from fleet.gateway.offered import offered, plain_of
from fleet.gateway.settings import Gateway
from fleet.kit.durations import seconds
from fleet.kit.facts.backups import NewestBackup
from fleet.kit.facts.files import FileStates
from fleet.webui import declared as webui
from fleet.webui.declared import webui_endpoint
from fleet.webui.files import managed_files
from fleet.webui.paths import WEBUI_BACKUP_TIMER, WEBUI_BACKUP_UNIT, WEBUI_CA, WEBUI_UNIT
from fleet.webui.settings import Webui

from .connection import Target
from .outcomes import Record, Say

# The timer on the host asks once an hour.
_TIMER = 3600 + 600


@pytest.fixture
def token(webui_host: Target) -> str:
    """What the administrator is let in with."""
    own = webui.SECRETS.of(webui_host.declared, webui_host.fleet)
    account = {"email": webui_host.declared[Webui].admin_email, "password": own["admin_password"]}
    status, answer = _ask(webui_host, "/api/v1/auths/signin", account)
    assert status == 200, (
        f"{answer}: {webui.SECRETS.name(webui_host.declared, 'admin_password')} in the secrets "
        "store is not the administrator's password; write the present one there"
    )
    assert answer["role"] == "admin"
    return str(answer["token"])


def test_files(webui_host: Target) -> None:
    """Open WebUI's settings and units on the host are the declared ones, its secrets root's."""
    files = managed_files(webui_host.declared, webui_host.fleet)
    states = webui_host.fact(FileStates, paths=[file.path for file in files])
    assert states == {file.path: file.state for file in files}


def test_running(webui_host: Target, measured: Say, record: Record) -> None:
    """The unit is up and starts at boot, and the container runs the image with the digest."""
    service = webui_host.testinfra.service(WEBUI_UNIT)
    assert service.is_enabled
    assert service.is_running, webui_host.journal(WEBUI_UNIT)
    container, image = _container(webui_host), str(webui_host.declared[Webui].image)
    assert container["Config"]["Image"] == image
    known = webui_host.run("docker image inspect -f '{{.RepoDigests}}' %s", container["Image"])
    assert image.partition("@")[2] in known
    measured(image.partition("@")[0].rpartition("/")[2])
    record("digests", *image.split("@"))


def test_closed_in(webui_host: Target) -> None:
    """The container writes its volumes only, and has no capability."""
    container = _container(webui_host)
    held = container["HostConfig"]
    assert held["ReadonlyRootfs"]
    assert held["CapDrop"] == ["ALL"]
    assert not held["CapAdd"]
    assert not held["Privileged"]
    assert "no-new-privileges" in held["SecurityOpt"]
    written = {mount["Destination"] for mount in container["Mounts"] if mount["RW"]}
    assert written == {"/app/backend/data", "/app/backend/open_webui/static"}


def test_published(webui_host: Target) -> None:
    """Nothing is published but Open WebUI's pages, and at the declared address."""
    published = {
        (port, binding["HostIp"], int(binding["HostPort"]))
        for port, bindings in _container(webui_host)["NetworkSettings"]["Ports"].items()
        for binding in bindings or []
    }
    endpoint = webui_endpoint(webui_host.declared)
    assert published == {("8080/tcp", endpoint.address, endpoint.port)}


def test_administrator(webui_host: Target, token: str) -> None:
    """The administrator's account is made, with the password of the secrets store."""
    assert token, webui_host.journal(WEBUI_UNIT)


def test_sign_up_refused(webui_host: Target) -> None:
    """Nobody can sign up, and all have to log in."""
    _, about = _ask(webui_host, "/api/config")
    assert about["features"]["auth"] is True
    assert about["features"]["enable_signup"] is False
    # Open, it would say that this is no address, and make no account of it.
    nobody = {"name": "compliance", "email": "not an address", "password": "compliance"}
    status, answer = _ask(webui_host, "/api/v1/auths/signup", nobody)
    assert status == 403, answer


def test_stranger_refused(webui_host: Target) -> None:
    """Who has not logged in sees no model."""
    status, answer = _ask(webui_host, "/api/models")
    assert status in (401, 403), answer


def test_models(webui_host: Target, token: str, measured: Say) -> None:
    """The models that Open WebUI lists are the fleet's."""
    _, answer = _ask(webui_host, "/api/models", token=token)
    listed = {model["id"] for model in answer["data"]}
    gateway = webui.access(webui_host.declared, webui_host.fleet)
    # What cannot be asked is an empty list here; why is in the log.
    assert listed == _behind(webui_host, gateway), webui_host.journal(WEBUI_UNIT)
    measured(", ".join(sorted(listed)))


def test_chat(webui_host: Target, token: str, measured: Say) -> None:
    """A chat through Open WebUI is answered."""
    _, listed = _ask(webui_host, "/api/models", token=token)
    assert listed["data"], webui_host.journal(WEBUI_UNIT)
    body = {
        "model": min(model["id"] for model in listed["data"]),
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "stream": False,
    }
    status, answer = _ask(webui_host, "/api/chat/completions", body, token=token)
    assert status == 200, answer
    said = answer["choices"][0]["message"]["content"].strip()
    assert said
    measured(repr(said[:40]))


def test_backup(webui_host: Target, measured: Say) -> None:
    """The newest backup is whole, root's alone, and not older than declared."""
    declared = webui_host.declared[Webui]
    journal = webui_host.journal(WEBUI_BACKUP_UNIT)
    age = webui_host.fact(NewestBackup, directory=declared.backup_dir, prefix="webui")
    assert age is not None, journal
    assert age < seconds(declared.backup_every) + _TIMER, journal
    newest, *owners = webui_host.run(
        "cd %s && ls -t webui-*.tar | head -n 1 && stat -c '%%a %%U' webui-*.tar | sort -u",
        declared.backup_dir,
    ).splitlines()
    assert owners == ["600 root"]
    webui_host.run(
        "cd %s && sha256sum --check --strict %s", declared.backup_dir, f"{newest}.sha256"
    )
    assert webui_host.testinfra.service(WEBUI_BACKUP_TIMER).is_enabled
    assert webui_host.testinfra.service(WEBUI_BACKUP_TIMER).is_running
    measured(f"{age / 3600:.1f} h")


def _behind(target: Target, gateway: Access) -> set[str]:
    """The models that the gateway itself lists for Open WebUI's key."""
    key = gateway.key.get_secret_value()
    options = f"cacert = {json.dumps(WEBUI_CA)}\n" if gateway.own_ca else ""
    status, answer = _curl(target, f"{gateway.url}/v1/models", key, options)
    assert status == 200, answer
    door = gateway_of(target.declared, target.fleet)
    assert door is not None
    keys = [item for item in door[Gateway].keys if item.name == target.declared[Webui].gateway_key]
    declared = {
        plain_of(name) for item in keys for name in offered(target.fleet, door[Gateway], item)
    }
    found = {model["id"] for model in answer["data"]}
    assert declared & set(map(plain_of, found)), f"{found} has none of {declared}"
    return found


def _ask(target: Target, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    """Status and answer of Open WebUI, asked on the host."""
    options = ""
    if body is not None:
        options = (
            f'header = "Content-Type: application/json"\ndata = {json.dumps(json.dumps(body))}\n'
        )
    return _curl(target, f"http://{webui_endpoint(target.declared)}{path}", token, options)


def _curl(target: Target, url: str, bearer: str, options: str) -> tuple[int, Any]:
    """What is asked goes over stdin: a password or key is in no list of processes."""
    header = f"Authorization: Bearer {bearer}"
    config = f"url = {json.dumps(url)}\n{options}"
    config += f"header = {json.dumps(header)}\n" if bearer else ""
    answer, _, status = target.run(
        "curl -sS --noproxy '*' --max-time 300 --write-out '\\n%{http_code}' --config -",
        stdin=config,
    ).rpartition("\n")
    return int(status), json.loads(answer)


def _container(target: Target) -> Any:
    """What Docker says of the container."""
    [found] = json.loads(target.run("docker inspect %s", webui.NAME))
    return found
