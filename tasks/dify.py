"""Dify: the release's own compose stack with its own secrets, set up and wired to the models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr
from pyinfra.api import deploy
from pyinfra.operations import files

from fleet.declare.load import PROJECT_ROOT, Fleet, FleetHost
from fleet.declare.types import proxy_environment
from fleet.dify import declared
from fleet.dify.operations import fetch_dify, have_backup, keep_app_keys, run_stack, set_up_dify
from fleet.gateway import tls
from fleet.kit import paths
from fleet.kit.commands import verify_unit
from fleet.kit.durations import due_after, seconds
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.packages import install_packages
from fleet.kit.render import host_program, render
from fleet.kit.units import enable_unit, run_unit

PROVIDER = "langgenius/ollama/ollama"
# Sample app to Dify's word for its kind. Only a workflow, streamed, proves the worker.
_MODES = {"chat": "chat", "workflow": "advanced-chat"}
# The daemon gives up after 15 minutes by itself.
_PLUGIN_TIMEOUT = 960
_READY_TIMEOUT = _RETRY_TIMEOUT = 180
# The same model has just answered whole, so it is loaded.
_STREAM_TIMEOUT = 120


@deploy("Dify")
def dify(me: FleetHost, fleet: Fleet) -> None:
    """Run the declared release, set it up as declared, and keep backups of it."""
    install_packages(
        name="Install tools", packages=["ca-certificates", "curl", "gzip", "python3", "tar"]
    )
    install_files(name="Install the programs", files=programs())
    install_files(name="Install the settings", files=config_files(me, fleet))
    fetch_dify(
        name=f"Fetch Dify {me.dify.version}",
        version=me.dify.version,
        url=f"{me.dify.release_url}/{me.dify.version}.tar.gz",
        sha256=str(me.dify.sha256),
        environment=proxy_environment(me.dify.http_proxy, me.dify.no_proxy),
    )
    run_stack(name="Run the containers as declared")
    _bring_package(me)
    set_up_dify(name="Set up owner, plugin, models and apps")
    keep_app_keys(
        name="Keep the apps' keys",
        store=fleet.secrets,
        names={role: declared.secret_name(me, f"app_{role}") for role in declared.APPS},
    )
    boot, service, timer = unit_files()
    install_files(
        name="Install the boot's unit", files=[boot], check=verify_unit(paths.DIFY_BOOT_UNIT)
    )
    enable_unit(name="Have Dify well after a boot", unit=paths.DIFY_BOOT_UNIT)
    install_files(
        name="Install the backup's unit",
        files=[service, timer],
        check=verify_unit(paths.DIFY_BACKUP_TIMER),
    )
    run_unit(
        name="Ask every hour for a backup",
        unit=paths.DIFY_BACKUP_TIMER,
        files=[],
    )
    have_backup(
        name="Have a backup",
        directory=me.dify.backup_dir,
        younger_than=seconds(me.dify.backup_every),
    )


def _bring_package(me: FleetHost) -> None:
    """The plugin's package, where it does not come from the marketplace."""
    package = me.dify.plugin_package
    if package is None:
        return
    if package.startswith(("http://", "https://")):
        files.download(
            name="Fetch the plugin",
            src=package,
            dest=paths.DIFY_PACKAGE,
            sha256sum=me.dify.plugin_sha256,
            mode="600",
        )
    else:
        files.put(
            name="Bring the plugin",
            src=str(PROJECT_ROOT / package),
            dest=paths.DIFY_PACKAGE,
            mode="600",
        )


def managed_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """Every file of Dify that the deploy writes, but for those of the release."""
    return [*programs(), *config_files(me, fleet), *unit_files()]


def programs() -> list[ManagedFile]:
    """What does the work on the host."""
    return [
        ManagedFile(path, host_program(room, Path(path).name), mode="755")
        for room, path in (
            ("dify", paths.DIFY_STACK_PROGRAM),
            ("dify", paths.DIFY_CLIENT_PROGRAM),
            ("kit", f"{paths.LIB}/fetch-release"),
        )
    ]


def config_files(me: FleetHost, fleet: Fleet) -> list[ManagedFile]:
    """What the programs read; root's alone."""
    values = declared.environment(me, fleet)
    texts = {
        paths.DIFY_VALUES: "".join(f"{name}={value}\n" for name, value in values.items()),
        paths.DIFY_CLIENT_CONFIG: json.dumps(client_config(me, fleet), indent=1) + "\n",
        paths.DIFY_SECRETS: json.dumps(declared.secrets_of(me, fleet), indent=1) + "\n",
    }
    secret = [ManagedFile(path, SecretStr(text), mode="600") for path, text in texts.items()]
    stack = json.dumps(stack_config(me, fleet), indent=1) + "\n"
    shown = [ManagedFile(paths.DIFY_STACK_CONFIG, stack)]
    if declared.ollama_access(me, fleet).own_ca:
        shown.append(ManagedFile(paths.DIFY_CA, tls.ca_certificate(fleet.secrets)))
    return [*secret, *shown]


def unit_files() -> tuple[ManagedFile, ManagedFile, ManagedFile]:
    """The unit that follows a boot, the one that makes a backup, and the timer that asks for it."""
    values = {"program": paths.DIFY_STACK_PROGRAM, "config": paths.DIFY_STACK_CONFIG}
    boot = render("dify/llm-fleet-dify-boot.service.j2", **values)
    service = render("dify/llm-fleet-dify-backup.service.j2", **values)
    timer = render("dify/llm-fleet-dify-backup.timer.j2")
    return (
        ManagedFile(paths.DIFY_BOOT_UNIT_FILE, boot),
        ManagedFile(paths.DIFY_BACKUP_UNIT_FILE, service),
        ManagedFile(paths.DIFY_BACKUP_TIMER_FILE, timer),
    )


def stack_config(me: FleetHost, fleet: Fleet) -> dict[str, Any]:
    """What `dify_stack.py` reads; nothing in it is secret."""
    access = declared.ollama_access(me, fleet)
    proxy = {
        "url": me.dify.http_proxy,
        "direct": [access.url.split("//")[1].rpartition(":")[0], *me.dify.no_proxy],
    }
    return {
        "version": me.dify.version,
        "project": declared.PROJECT,
        "pristine": paths.DIFY_PRISTINE,
        "root": paths.DIFY_ROOT,
        "values": paths.DIFY_VALUES,
        "secrets": paths.DIFY_SECRETS,
        "client": paths.DIFY_CLIENT_CONFIG,
        "restore": paths.DIFY_RESTORE,
        "images": me.dify.images,
        "public_defaults": declared.PUBLIC_DEFAULTS,
        "publish": {"nginx": [f"{me.dify_endpoint}:80"]},
        "network": {
            "bridge": declared.BRIDGE,
            "subnet": str(me.dify.subnet),
            # The other half is for fixed addresses.
            "ip_range": str(next(iter(me.dify.subnet.subnets()))),
            "daemon": declared.daemon_address(me.dify),
        },
        "proxy": proxy if me.dify.http_proxy else None,
        "ca": paths.DIFY_CA if access.own_ca else None,
        "start_timeout": seconds(me.dify.start_timeout),
        "backup": {
            "dir": me.dify.backup_dir,
            "keep": me.dify.backup_keep,
            "due": due_after(me.dify.backup_every),
        },
    }


def client_config(me: FleetHost, fleet: Fleet) -> dict[str, Any]:
    """What `dify_client.py` reads."""
    values = declared.secrets_of(me, fleet)
    access = declared.ollama_access(me, fleet)
    models = declared.models_of(me, fleet)
    plugin: dict[str, Any] = {"identifier": me.dify.plugin}
    if me.dify.plugin_package:
        plugin = {"package": paths.DIFY_PACKAGE, "sha256": me.dify.plugin_sha256}
    return {
        "url": f"http://{me.dify_endpoint}",
        "owner": {
            "email": me.dify.owner_email,
            "name": me.dify.owner_name,
            "language": me.dify.language,
            "password": values["owner_password"],
        },
        "init_password": values["init_password"],
        "password_name": declared.secret_name(me, "owner_password"),
        "reset_command": f"docker exec -it {declared.PROJECT}-api-1 flask reset-password",
        "plugin": plugin,
        "ollama": {
            "url": access.url,
            "key": access.key.get_secret_value() if access.key else None,
        },
        "models": [model.model_dump() for model in models],
        "apps": [sample_app(me, role, models[0].name) for role in declared.APPS],
        "keys": paths.DIFY_KEYS,
        "memory": paths.DIFY_MEMORY,
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
    return me.dify.app_name + ("" if role == "chat" else f" ({role})")
