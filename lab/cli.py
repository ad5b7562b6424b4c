"""The lab's command line: a fleet of real systemd hosts on this machine."""

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from lab import gpu, hosts, images, machine, network, processes, roots, services, state
from lab.state import Host, Lab, LabError, say, timed

Kind = str | Path  # what a host is made from: the name of a recipe, or a tarball

of_lab = click.pass_obj  # the id of the lab that is meant


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--id", "lab_id", envvar="LLM_FLEET_LAB_ID", help="Another lab than the checkout's.")
@click.pass_context
def main(context: click.Context, lab_id: str | None) -> None:
    """Boot a fleet of real systemd hosts on this machine, reachable over SSH."""
    context.obj = state.checked_id(lab_id)


@main.command()
@click.option("--hosts", "count", default=3, show_default=True, type=click.IntRange(1, 20))
@click.option("--debian-12", "debian_12", multiple=True, metavar="HOST", help="Debian 12 for HOST.")
@click.option(
    "--ubuntu-like",
    multiple=True,
    metavar="HOST",
    help="Debian 13 with Ubuntu's userland for HOST: coreutils and sudo in Rust, ufw, netplan ...",
)
@click.option(
    "--root",
    "tarballs",
    multiple=True,
    metavar="[HOST=]TARBALL",
    envvar="LLM_FLEET_LAB_ROOT",
    help="The root file system in TARBALL for HOST, or for all that no other option names.",
)
@click.option(
    "--ollama-release",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Serve this release tarball instead of the lab's own stand-in.",
)
@click.option(
    "--gpu",
    "gpus",
    multiple=True,
    metavar="HOST=PROFILE",
    help=f"The GPUs that HOST shows: {', '.join(gpu.PROFILES)}.",
)
@click.option("--dify", is_flag=True, help="One more host, dify1, and a registry with its images.")
@of_lab
def up(  # noqa: PLR0913, PLR0917 - an option each
    lab_id: str,
    count: int,
    debian_12: Sequence[str],
    ubuntu_like: Sequence[str],
    tarballs: Sequence[str],
    ollama_release: Path | None,
    gpus: Sequence[str],
    dify: bool,
) -> None:
    """Boot the hosts that are missing: gpu1, gpu2 ... and edge, the gateway."""
    plan = state.plan(count, dify=dify)
    asked = _asked_for(plan, debian_12, ubuntu_like, tarballs)
    kinds = dict.fromkeys([host.name for host in plan], _default(tarballs)) | asked
    profiles = _profiles(plan, gpus)
    machine.prepare(len(plan), dify=dify)
    with _locked(lab_id):
        lab = state.allocate(lab_id)
        _refuse_other_kind(lab, asked)
        machine.settle()
        with services.preparing(lab, ollama_release, dify=dify) as upstream:
            _boot(lab, plan, kinds)
            services.up(lab, upstream.result())
        _write_json(lab)
        for name, profile in profiles.items():
            _give_gpus(lab, name, profile, None)
        say(f"the lab is up: {', '.join(host.name for host in plan)} (`lab ssh gpu1`)")


@main.command()
@of_lab
def down(lab_id: str) -> None:
    """End all of the lab and remove every trace of it; the image cache stays."""
    machine.need_root()
    with _locked(lab_id):
        lab = state.find(lab_id)
        if lab is None:
            say("there is no lab to take down")
            return
        with timed("the lab is gone"):
            processes.kill(processes.group(lab))
            with contextlib.suppress(OSError):  # another lab's groups are in it
                processes.group(lab).parent.rmdir()
            network.down(lab)
            machine.restore(lab)
            state.forget(lab)


@main.command()
@of_lab
def status(lab_id: str) -> None:
    """List the hosts; exit 1 unless all of them are up."""
    lab = _existing(lab_id)
    rows = {name: hosts.state(lab, name) for name in hosts.known(lab)}
    for name, record in hosts.known(lab).items():
        groups = ",".join(record["groups"])
        addresses = f"{record['address']:<14}{record['address6']:<16}"
        click.echo(f"{name:<6} {groups:<12}{record['release']:<12} {addresses}{rows[name]}")
    click.echo(f"upstream {services.state(lab)}")
    if lab.read("registry"):
        click.echo(f"registry {services.registry_state(lab)}")
    if set(rows.values()) != {"up"}:
        sys.exit(1)


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--user", default="root", show_default=True, type=click.Choice(state.USERS))
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@of_lab
def ssh(lab_id: str, user: str, host: str, command: Sequence[str]) -> None:
    """Log in to HOST, or run COMMAND there."""
    lab = _existing(lab_id)
    _known(lab, host)
    argv = [*hosts.ssh(lab, host, user), *command]
    os.execvp(argv[0], argv)  # noqa: S606


@main.command()
@click.argument("host")
@click.option("--debian-12", "debian_12", is_flag=True, help="Make it a Debian 12 host.")
@of_lab
def reset(lab_id: str, host: str, debian_12: bool) -> None:
    """Make HOST anew: bare, with new host keys."""
    with _locked(lab_id):
        lab = _existing(lab_id)
        _known(lab, host)
        image = hosts.image_of(lab, host)
        if debian_12 or images.name_of(image) in images.RECIPES:
            image = images.ensure("bookworm" if debian_12 else images.name_of(image))
        groups = tuple(hosts.known(lab)[host]["groups"])
        index = next(h.index for h in state.every_host() if h.name == host)
        hosts.remove(lab, host)
        hosts.up(lab, Host(host, groups, index), image)
        _write_json(lab)


@main.command("gpu")
@click.argument("host")
@click.argument("profile", type=click.Choice(list(gpu.PROFILES)))
@click.option("--kernel", metavar="RELEASE", help="What `uname -r` says; by default the newest.")
@click.option("--memory", type=int, metavar="MIB", help="Of each GPU; by default the real one's.")
@of_lab
def gpu_(lab_id: str, host: str, profile: str, kernel: str | None, memory: int | None) -> None:
    """Let HOST show the GPUs of PROFILE, from now on."""
    with _locked(lab_id):
        lab = _existing(lab_id)
        _known(lab, host)
        _give_gpus(lab, host, profile, kernel, memory)


@main.command("exec-foreign", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@of_lab
def exec_foreign(lab_id: str, command: Sequence[str]) -> None:
    """Run COMMAND with the network of a host that is not of the fleet."""
    argv = [*network.foreign(_existing(lab_id)), *command]
    os.execvp(argv[0], argv)  # noqa: S606


def _locked(lab_id: str) -> contextlib.AbstractContextManager[None]:
    return state.lock(f"lab-{lab_id}", "waiting for another `lab` command on this lab")


def _existing(lab_id: str) -> Lab:
    machine.need_root()
    lab = state.find(lab_id)
    if lab is None:
        raise LabError("There is no lab: run `lab up`.")
    return lab


def _known(lab: Lab, host: str) -> None:
    records = hosts.known(lab)
    if host not in records:
        raise LabError(f"There is no host {host!r}: the lab has {', '.join(records)}.")


def _asked_for(
    plan: Sequence[Host], debian_12: Sequence[str], ubuntu_like: Sequence[str], roots: Sequence[str]
) -> dict[str, Kind]:
    """Host to what an option says that it is made from."""
    asked: list[tuple[str, str, Kind]] = [
        *(("--debian-12", name, "bookworm") for name in debian_12),
        *(("--ubuntu-like", name, "ubuntu-like") for name in ubuntu_like),
        *(
            ("--root", text.partition("=")[0], _tarball(text))
            for text in roots
            if _names_host(text)
        ),
    ]
    names = [host.name for host in plan]
    for option, name, _ in asked:
        if name not in names:
            raise LabError(f"{option} {name}: this lab's hosts are {', '.join(names)}.")
    return {name: kind for _, name, kind in asked}


def _default(roots: Sequence[str]) -> Kind:
    return next((_tarball(text) for text in roots if not _names_host(text)), images.DEFAULT)


def _names_host(text: str) -> bool:
    return text.partition("=")[0] not in ("", text)


def _tarball(text: str) -> Path:
    path = Path(text.rpartition("=")[2])
    if not path.is_file():
        raise LabError(f"--root {text}: there is no file {path}: write [HOST=]TARBALL.")
    return path


def _profiles(plan: Sequence[Host], gpus: Sequence[str]) -> dict[str, str]:
    chosen = dict(text.partition("=")[::2] for text in gpus)
    names = [host.name for host in plan]
    for name, profile in chosen.items():
        if name not in names or profile not in gpu.PROFILES:
            raise LabError(
                f"--gpu {name}={profile}: write HOST=PROFILE with a host of {', '.join(names)} and "
                f"a profile of {', '.join(gpu.PROFILES)}."
            )
    return chosen


def _give_gpus(
    lab: Lab, name: str, profile: str, kernel: str | None, memory: int | None = None
) -> None:
    with timed(f"{name}: shows the GPUs of {profile}"):
        gpu.install(lab, name, profile, kernel, memory)
    hosts.count_gpus(lab, name, len(gpu.PROFILES[profile].gpus))
    _write_json(lab)


def _refuse_other_kind(lab: Lab, asked: Mapping[str, Kind]) -> None:
    """Refuse to make another host of one that is there."""
    for name in hosts.known(lab).keys() & asked.keys():
        there, kind = images.name_of(hosts.image_of(lab, name)), asked[name]
        wanted = roots.name_of(kind) if isinstance(kind, Path) else kind
        if wanted != there:
            way = (
                f"`lab reset {name} --debian-12`" if wanted == "bookworm" else "`lab down`, then up"
            )
            raise LabError(f"{name} is made from {there}: {way} makes it anew from {wanted}.")


def _boot(lab: Lab, plan: Sequence[Host], kinds: Mapping[str, Kind]) -> None:
    """Boot all missing hosts at once; an existing one keeps the image it has."""
    there = hosts.known(lab)
    wanted = {kinds[host.name] for host in plan if host.name not in there}
    built = {
        kind: roots.ensure(kind) if isinstance(kind, Path) else images.ensure(kind)
        for kind in sorted(wanted, key=str)
    }
    made = {
        host: hosts.image_of(lab, host.name) if host.name in there else built[kinds[host.name]]
        for host in plan
    }
    if not lab.ssh_key.exists():
        lab.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        state.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", lab.ssh_key])
    if network.up(lab):
        # The hosts' links ended with the network they were on.
        for name in hosts.known(lab):
            hosts.stop(lab, name)
        say("network: bridge, addresses and the way out are there")
    with ThreadPoolExecutor(max_workers=len(plan)) as pool:
        jobs = [pool.submit(hosts.up, lab, host, image) for host, image in made.items()]
    for job in jobs:
        job.result()


def _write_json(lab: Lab) -> None:
    """Write what inventory/lab.py and the tests read, and the hosts' keys for strict checking."""
    records = hosts.known(lab)
    keys = [(lab.host_dir(name) / "known_hosts").read_text() for name in records]
    lab.known_hosts.write_text("".join(keys))
    shown = ("groups", "address", "address6", "release", "gpus")
    state.write_json(
        lab.json_path,
        {
            "hosts": {name: {key: r[key] for key in shown} for name, r in records.items()},
            "ssh_key": str(lab.ssh_key),
            "known_hosts": str(lab.known_hosts),
            "users": state.USERS,
            "upstream": services.describe(lab),
            "foreign": {
                "address": lab.address(network.FOREIGN),
                "address6": lab.address6(network.FOREIGN),
                "netns": str(network.namespace(lab, "netns-foreign")),
            },
            "controller": {
                "address": lab.address(network.CONTROLLER),
                "address6": lab.address6(network.CONTROLLER),
            },
        },
    )


if __name__ == "__main__":
    main()
