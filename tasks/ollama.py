"""Ollama: a pinned release under a hardened unit."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy
from pyinfra.facts.server import Arch
from pyinfra.operations import server

from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.images import pull_image
from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.gateway.settings import Gateway
from fleet.kit.errors import FleetError
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.places import have_directory
from fleet.kit.proxy import proxy_environment
from fleet.kit.refuse import refuse
from fleet.kit.releases import fetcher_file
from fleet.kit.units import run_unit
from fleet.ollama.files import running_files
from fleet.ollama.instances import refuse_missing_gpus
from fleet.ollama.operations import (
    install_release,
    install_units,
    remove_servers,
    switch_release,
    try_servers,
)
from fleet.ollama.paths import OLLAMA_HOME, OLLAMA_USER
from fleet.ollama.preflight import UNIT_PATTERNS, refuse_foreign_installation
from fleet.ollama.release import release_source
from fleet.ollama.servers import instances_of
from fleet.ollama.settings import Ollama
from fleet.ollama.storage import home, models_directory
from fleet.serving.again import start_who_is_out
from fleet.serving.operations import roll_servers


@deploy("Instances")
def instances(me: FleetHost) -> None:
    """Refuse GPUs that are not there, before anything is changed; as far as the host can tell.

    The rest of the fleet goes on: a card that dies is no fault of the settings.
    """
    if not me[Ollama].instances:
        return
    present = host.get_fact(DrivenGpus)
    try:
        refuse_missing_gpus(instances_of(me), present, host.get_fact(GpuHardwareFact))
    except FleetError as error:
        refuse(name="Refuse GPUs that are not there", message=str(error))


@deploy("Ollama")
def ollama(me: FleetHost, fleet: Fleet) -> None:
    """Run the declared release with exactly the declared environment, once or several times."""
    refuse_foreign_installation(me, host.get_fact(ForeignFiles, patterns=UNIT_PATTERNS))
    url, sha256 = release_source(me, host.get_fact(Arch))
    install_packages(name="Install tools", packages=["ca-certificates", "curl", "zstd"])
    server.group(name="Create the group", group=OLLAMA_USER, system=True)
    server.user(  # noqa: S604 - shell= is the login shell
        name="Create the user",
        user=OLLAMA_USER,
        group=OLLAMA_USER,
        system=True,
        home=OLLAMA_HOME,
        shell="/usr/sbin/nologin",
        create_home=False,
        # It takes no link for a home, and would follow one.
        ensure_home=False,
    )
    have_directory(name="Create the home", directory=home(), group=OLLAMA_USER, mode="750")
    have_directory(
        name="Create the models directory",
        directory=models_directory(me[Ollama]),
        group=OLLAMA_USER,
        mode="755",
    )
    servers = list(instances_of(me))
    runtimes = {item.runtime for item in servers}
    if "systemd" in runtimes:
        _install_release(me, url, sha256)
    if "docker" in runtimes:
        pull_image(
            name="Pull the image", image=str(me[Ollama].image), unit="llm-fleet-pull-ollama.service"
        )
    # Before anything that what runs would be started with next.
    try_servers(name="Try what changes", instances=servers)
    if any(item.runs(Gateway) for item in fleet):
        # Before the last host that is served may have to be interrupted.
        start_who_is_out(name="Start what gets no requests", me=me, fleet=fleet)
    # Who is served is taken out of the gateways first; what is left is for hosts that are not.
    roll_servers(name="Restart what runs, in turn", me=me, fleet=fleet)
    if "systemd" in runtimes:
        switch_release(name=f"Switch to Ollama {me[Ollama].version}", version=me[Ollama].version)
    install_units(
        name="Install the instances' units" if me[Ollama].instances else "Install the unit",
        instances=servers,
    )
    # Before the new ones start, which may have a port of theirs.
    remove_servers(name="Remove servers that are not declared", instances=servers)
    for item in servers:
        run_unit(
            name=f"Run Ollama as declared{f': {item.name}' if item.name else ''}",
            unit=item.unit,
            files=running_files(item),
            health_url=f"{item.url}/api/version",
            container=item.container,
        )


def _install_release(me: FleetHost, url: str, sha256: str) -> None:
    install_files(
        name="Install the release fetcher",
        files=[fetcher_file()],
    )
    install_release(
        name=f"Install Ollama {me[Ollama].version}",
        version=me[Ollama].version,
        url=url,
        sha256=sha256,
        environment=proxy_environment(me[Ollama].https_proxy, me[Ollama].no_proxy),
    )
