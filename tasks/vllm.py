"""vLLM: the pinned image or a locked virtual environment, a unit a server, and its watch."""

from __future__ import annotations

from pyinfra.api import deploy
from pyinfra.operations import server

from fleet.declare.fleet import Fleet, FleetHost
from fleet.docker.images import pull_image
from fleet.gateway.settings import Gateway
from fleet.kit.files import install_files
from fleet.kit.packages import install_packages
from fleet.kit.places import Directory, have_directory
from fleet.kit.units import run_unit
from fleet.serving.vllm import roll_vllm, start_vllm_who_is_out
from fleet.vllm.files import lock_file, programs, running_files
from fleet.vllm.operations import (
    answer,
    install_units,
    install_venv,
    judge_servers,
    remove_servers,
    switch_venv,
)
from fleet.vllm.paths import VLLM_CACHE, VLLM_ROOT, VLLM_USER, watch_timer
from fleet.vllm.servers import caches, vllm_instances
from fleet.vllm.settings import Vllm


@deploy("vLLM")
def vllm_fits(me: FleetHost) -> None:
    """Refuse servers that cannot start, before anything is changed; as far as the host can tell."""
    judge_servers(name="Judge whether the servers fit", me=me, final=False)


@deploy("vLLM")
def vllm(me: FleetHost, fleet: Fleet) -> None:
    """Run the declared servers and no other, each ready when its engine has made a token."""
    # What workers ask for the machine's memory, and what watches them.
    install_packages(
        name="Install tools",
        packages=["ca-certificates", "curl", "python3", *_for_venv(me)],
    )
    server.group(name="Create the group", group=VLLM_USER, system=True)
    server.user(  # noqa: S604 - shell= is the login shell
        name="Create the user",
        user=VLLM_USER,
        group=VLLM_USER,
        system=True,
        home=VLLM_CACHE,
        shell="/usr/sbin/nologin",
        create_home=False,
        # It takes no link for a home, and would follow one.
        ensure_home=False,
    )
    have_directory(
        name="Create the caches' directory",
        directory=Directory(VLLM_CACHE, VLLM_CACHE),
        group="root",
        mode="755",
    )
    for cache in caches(me):
        have_directory(name=f"Create {cache.path}", directory=cache, group=VLLM_USER, mode="700")
    install_files(name="Install the programs", files=programs())
    if me[Vllm].runtime == "docker":
        pull_image(
            name="Pull the image", image=str(me[Vllm].image), unit="llm-fleet-pull-vllm.service"
        )
    else:
        have_directory(
            name="Create the environments' directory",
            directory=Directory(VLLM_ROOT, VLLM_ROOT),
            group="root",
            mode="755",
        )
        install_files(name="Install the lock", files=lock_file(me, fleet))
        install_venv(name="Install the locked packages", me=me, fleet=fleet)
    judge_servers(name="Judge whether the servers fit the GPUs", me=me, final=True)
    if any(item.runs(Gateway) for item in fleet):
        # Before the last host that is served may have to be interrupted.
        start_vllm_who_is_out(name="Start what gets no requests", me=me, fleet=fleet)
    # Who is served is taken out of the gateways first; what is left is for servers that are not.
    roll_vllm(name="Restart what runs, in turn", me=me, fleet=fleet)
    if me[Vllm].runtime == "venv":
        switch_venv(name="Switch to the locked packages", me=me, fleet=fleet)
    install_units(name="Install the units", me=me)
    # Before the new ones start, which may have a port or a GPU of theirs.
    remove_servers(name="Remove servers that are not declared", me=me)
    items = vllm_instances(me)
    for item in items:
        run_unit(
            name=f"Run vLLM as declared: {item.name}",
            unit=item.unit,
            files=running_files(item),
        )
        run_unit(
            name=f"Watch {item.name}",
            unit=watch_timer(item.name),
            files=[f"/etc/systemd/system/{watch_timer(item.name)}"],
        )
    # All of them load at once.
    for item in items:
        answer(name=f"Have {item.name} answer", item=item)


def _for_venv(me: FleetHost) -> list[str]:
    """libnuma1: CPU builds name it only when they are asked for something."""
    return ["python3-venv", "libnuma1"] if me[Vllm].runtime == "venv" else []
