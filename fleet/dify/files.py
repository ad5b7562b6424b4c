"""Every file of Dify that is not the release's."""

from __future__ import annotations

import json
from typing import Any

import yaml
from pydantic import SecretStr

from fleet.declare.fleet import Fleet, FleetHost
from fleet.dify import declared
from fleet.dify.declared import dify_endpoint
from fleet.dify.paths import (
    DIFY_BACKUP_TIMER_FILE,
    DIFY_BACKUP_UNIT_FILE,
    DIFY_BOOT_UNIT_FILE,
    DIFY_CA,
    DIFY_CLIENT_CONFIG,
    DIFY_KEPT_PACKAGE,
    DIFY_KEYS,
    DIFY_MEMORY,
    DIFY_PACKAGE,
    DIFY_PRISTINE,
    DIFY_RESTORE,
    DIFY_ROOT,
    DIFY_SECRETS,
    DIFY_STACK_CONFIG,
    DIFY_STACK_PROGRAM,
    DIFY_VALUES,
)
from fleet.dify.settings import Dify
from fleet.gateway.declared import authority_certificate
from fleet.kit.backups import timer_file
from fleet.kit.durations import due_after, seconds
from fleet.kit.files import ManagedFile
from fleet.kit.host_programs import program_files
from fleet.kit.paths import ETC
from fleet.kit.releases import fetcher_file
from fleet.kit.render import render
from fleet.kit.sandbox import sandbox

PROVIDER = "langgenius/ollama/ollama"
# Sample app to Dify's word for its kind. Only a workflow, streamed, proves the worker.
_MODES = {"chat": "chat", "workflow": "advanced-chat"}
# The daemon gives up after 15 minutes by itself.
_PLUGIN_TIMEOUT = 960
_READY_TIMEOUT = _RETRY_TIMEOUT = 180
# The same model has just answered whole, so it is loaded.
_STREAM_TIMEOUT = 120


def managed_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """Every file of Dify that the deploy writes, but for those of the release."""
    return [*programs(), *config_files(me, fleet), *unit_files()]


def programs() -> list[ManagedFile]:
    """What does the work on the host."""
    return [*program_files("dify", "dify_client", "dify_stack"), fetcher_file()]


def config_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """What the programs read; root's alone."""
    values = declared.environment(me, fleet)
    texts = {
        DIFY_VALUES: "".join(f"{name}={value}\n" for name, value in values.items()),
        DIFY_CLIENT_CONFIG: json.dumps(client_config(me, fleet), indent=1) + "\n",
        DIFY_SECRETS: json.dumps(declared.SECRETS.of(me, fleet), indent=1) + "\n",
    }
    secret = [ManagedFile(path, SecretStr(text), mode="600") for path, text in texts.items()]
    stack = json.dumps(stack_config(me, fleet), indent=1) + "\n"
    # What is read by its name in another file comes before that one.
    shown = [ManagedFile(DIFY_STACK_CONFIG, stack)]
    if declared.ollama_access(me, fleet).own_ca:
        shown.insert(0, ManagedFile(DIFY_CA, authority_certificate(fleet)))
    return [*secret, *shown]


def stack_sandbox() -> list[str]:
    """What the stack's program is kept from: lines of a unit's `[Service]`.

    It is Docker's client, and has root's rights to the volumes, wherever Docker keeps them: backups
    and restores are of everybody's files, with their modes, and an operator may have backups below
    /home. It asks Dify over HTTP, and the kernel when the containers' processes began, which are of
    other users.
    """
    return sandbox(
        CapabilityBoundingSet="CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID",
        RestrictAddressFamilies="AF_UNIX AF_INET AF_INET6",
        RestrictSUIDSGID="no",
        SystemCallFilter="@system-service",
        ProtectSystem="full",
        ProtectHome="no",
        ProcSubset="all",
        ProtectProc="default",
        ReadWritePaths=ETC,
    )


def unit_files() -> tuple[ManagedFile, ManagedFile, ManagedFile]:
    """The unit that follows a boot, the one that makes a backup, and the timer that asks for it."""
    values = {
        "program": DIFY_STACK_PROGRAM,
        "config": DIFY_STACK_CONFIG,
        "closed": "\n".join(stack_sandbox()),
    }
    boot = render("dify/llm-fleet-dify-boot.service.j2", **values)
    service = render("dify/llm-fleet-dify-backup.service.j2", **values)
    return (
        ManagedFile(DIFY_BOOT_UNIT_FILE, boot),
        ManagedFile(DIFY_BACKUP_UNIT_FILE, service),
        timer_file(DIFY_BACKUP_TIMER_FILE, "Dify"),
    )


def stack_config(me: FleetHost, fleet: Fleet) -> dict[str, Any]:
    """What `dify_stack.py` reads; nothing in it is secret."""
    access = declared.ollama_access(me, fleet)
    proxy = {
        "url": me[Dify].http_proxy,
        "direct": [access.url.endpoint.host, *me[Dify].no_proxy],
    }
    return {
        "version": me[Dify].version,
        "project": declared.PROJECT,
        "pristine": DIFY_PRISTINE,
        "root": DIFY_ROOT,
        "values": DIFY_VALUES,
        "secrets": DIFY_SECRETS,
        "client": DIFY_CLIENT_CONFIG,
        "restore": DIFY_RESTORE,
        "images": me[Dify].images,
        "publish": {"nginx": [f"{dify_endpoint(me)}:80"]},
        "network": {
            "bridge": declared.BRIDGE,
            "subnet": str(me[Dify].subnet),
            # The other half is for fixed addresses.
            "ip_range": str(next(iter(me[Dify].subnet.subnets()))),
            "daemon": declared.daemon_address(me[Dify]),
        },
        "proxy": proxy if me[Dify].http_proxy else None,
        "ca": DIFY_CA if access.own_ca else None,
        "start_timeout": seconds(me[Dify].start_timeout),
        "backup": {
            "dir": me[Dify].backup_dir,
            "keep": me[Dify].backup_keep,
            "due": due_after(me[Dify].backup_every),
        },
    }


def client_config(me: FleetHost, fleet: Fleet) -> dict[str, Any]:
    """What `dify_client.py` reads."""
    values = declared.SECRETS.of(me, fleet)
    access = declared.ollama_access(me, fleet)
    models = declared.models_of(me, fleet)
    plugin: dict[str, Any] = {"identifier": me[Dify].plugin}
    if me[Dify].plugin_package:
        plugin = {
            "package": DIFY_PACKAGE,
            "sha256": me[Dify].plugin_sha256,
            "kept": DIFY_KEPT_PACKAGE,
        }
    return {
        "url": f"http://{dify_endpoint(me)}",
        "owner": {
            "email": me[Dify].owner_email,
            "name": me[Dify].owner_name,
            "language": me[Dify].language,
            "password": values["owner_password"],
        },
        "init_password": values["init_password"],
        "password_name": declared.SECRETS.name(me, "owner_password"),
        "reset_command": f"docker exec -it {declared.PROJECT}-api-1 flask reset-password",
        "plugin": plugin,
        "ollama": {
            "url": str(access.url),
            "key": access.key.get_secret_value() if access.key else None,
        },
        "models": [model.model_dump() for model in models],
        "apps": [sample_app(me, role, models[0].name) for role in declared.APPS],
        "keys": DIFY_KEYS,
        "memory": DIFY_MEMORY,
        "ready_timeout": _READY_TIMEOUT,
        "retry_timeout": _RETRY_TIMEOUT,
        "plugin_timeout": _PLUGIN_TIMEOUT,
        "stream_timeout": _STREAM_TIMEOUT,
    }


def sample_app(me: FleetHost, role: str, model: str) -> dict[str, Any]:
    """A sample app: its DSL, and of a chat the part that it is changed by once it is there."""
    name = app_name(me, role)
    dsl = render(f"dify/{role}.yml.j2", name=name, model=model, provider=PROVIDER)
    content = yaml.safe_load(dsl)
    return {
        "role": role,
        "name": name,
        "mode": _MODES[role],
        "dsl": dsl,
        "model_config": content.get("model_config"),
    }


def app_name(me: FleetHost, role: str) -> str:
    """What a sample app is called in Dify."""
    return me[Dify].app_name + ("" if role == "chat" else f" ({role})")
