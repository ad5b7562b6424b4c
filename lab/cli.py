"""The lab's command line: a fleet of real systemd hosts on this machine."""

import contextlib
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from lab import gpu, hosts, images, machine, network, processes, services, state
from lab.state import Host, Lab, LabError, say, timed

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
    ollama_release: Path | None,
    gpus: Sequence[str],
    dify: bool,
) -> None:
    """Boot the hosts that are missing: gpu1, gpu2 ... and edge, the gateway."""
    plan = state.plan(count, dify=dify)
    releases = _releases(plan, debian_12)
    profiles = _profiles(plan, gpus)
    machine.prepare(len(plan), dify=dify)
    with _locked(lab_id):
        lab = state.allocate(lab_id)
        _refuse_other_release(lab, debian_12)
        machine.settle()
        with services.preparing(lab, ollama_release, dify=dify) as upstream:
            _boot(lab, plan, releases)
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
        click.echo(f"{name:<6} {groups:<12}{record['release']:<10}{addresses}{rows[name]}")
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
        release = "bookworm" if debian_12 else hosts.release_of(lab, host) or state.RELEASES[0]
        image = images.ensure(release)
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


def _releases(plan: Sequence[Host], debian_12: Sequence[str]) -> dict[str, str]:
    names = [host.name for host in plan]
    for name in set(debian_12) - set(names):
        raise LabError(f"--debian-12 {name}: this lab's hosts are {', '.join(names)}.")
    return {name: "bookworm" if name in debian_12 else "trixie" for name in names}


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


def _refuse_other_release(lab: Lab, debian_12: Sequence[str]) -> None:
    for name in debian_12:
        if hosts.release_of(lab, name) not in (None, "bookworm"):
            raise LabError(f"{name} has Debian 13: `lab reset {name} --debian-12` makes it anew.")


def _boot(lab: Lab, plan: Sequence[Host], releases: dict[str, str]) -> None:
    """Boot all missing hosts at once; an existing one keeps the release it has."""
    wanted = {hosts.release_of(lab, host.name) or releases[host.name] for host in plan}
    built = {release: images.ensure(release) for release in sorted(wanted)}
    if not lab.ssh_key.exists():
        lab.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        state.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", lab.ssh_key])
    if network.up(lab):
        # The hosts' links ended with the network they were on.
        for name in hosts.known(lab):
            hosts.stop(lab, name)
        say("network: bridge, addresses and the way out are there")
    with ThreadPoolExecutor(max_workers=len(plan)) as pool:
        jobs = [
            pool.submit(
                hosts.up, lab, host, built[hosts.release_of(lab, host.name) or releases[host.name]]
            )
            for host in plan
        ]
    for job in jobs:
        job.result()


def _write_json(lab: Lab) -> None:
    """Write what inventory/lab.py and the tests read, and the hosts' keys for strict checking."""
    records = hosts.known(lab)
    keys = [(lab.host_dir(name) / "known_hosts").read_text() for name in records]
    lab.known_hosts.write_text("".join(keys))
    shown = ("groups", "address", "address6", "release")
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
