"""What `fleet doctor` looks at on any host: by the judgement of the deploy's first step."""

from __future__ import annotations

import time
from collections.abc import Iterator

from pyinfra.facts.files import Directory
from pyinfra.facts.server import Arch, LinuxDistribution

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import (
    Ask,
    Line,
    UnansweredError,
    Verdict,
    fail,
    judged,
    not_checked,
    ok,
    warn,
)
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.listeners import Listeners
from fleet.kit.facts.places import Places
from fleet.kit.paths import SECRETS_STORE
from fleet.platform.directories import refuse_directories
from fleet.platform.facts import AptArchives, Archives, Clock, HostAddresses, HostClock
from fleet.platform.files import secrets_note
from fleet.platform.ports import refuse_taken_ports
from fleet.platform.preflight import (
    refuse_distribution,
    refuse_missing_address,
    refuse_other_init,
    refuse_other_store,
    refuse_wrong_clock,
)
from fleet.platform.settings import Platform

_ARCHITECTURES = ("x86_64", "aarch64")
# From then on certificates and apt's lists are of the future or of the past.
_ODD_CLOCK = 5
# What a store is known by; whoever reads it makes none.
_STORE_ID = "store_id"


def checks(me: FleetHost, fleet: Fleet, ask: Ask) -> Iterator[Line]:
    """System, clock, addresses, ports, directories, and whose secrets the host has."""
    yield judged("system", lambda: _system(me, ask))
    yield judged("architecture", lambda: _architecture(me, ask))
    yield judged("clock", lambda: _clock(me, ask))
    yield _time_service(ask)
    yield judged("DNS", lambda: _names(me, ask))
    if me[Platform].private_address is not None:
        yield judged("private address", lambda: _address(me, ask))
    yield judged("ports", lambda: _ports(me, fleet, ask))
    yield judged("directories", lambda: _directories(me, fleet, ask))
    if fleet.keeps_secrets(me):
        yield _secrets(me, fleet, ask)


def _system(me: FleetHost, ask: Ask) -> str:
    release = ask(LinuxDistribution)["release_meta"]
    refuse_distribution(me, release)
    refuse_other_init(me, has_systemd=bool(ask(Directory, path="/run/systemd/system")))
    return f"{release['ID']} {release['VERSION_ID']} with systemd"


def _architecture(me: FleetHost, ask: Ask) -> str:
    machine = str(ask(Arch))
    if machine not in _ARCHITECTURES:
        known = " and ".join(_ARCHITECTURES)
        raise FleetError(f"{me.name}: {machine} is not supported, only {known}; take another host")
    return machine


def _clock(me: FleetHost, ask: Ask) -> str:
    before = time.time()
    clock: Clock = ask(HostClock)
    # The host looked at some time in between.
    off = refuse_wrong_clock(me, clock, (before + time.time()) / 2)
    return f"{off:+.1f} s from this machine's" if abs(off) > _ODD_CLOCK else "as this machine's"


def _time_service(ask: Ask) -> Line:
    what = "time service"
    try:
        clock: Clock = ask(HostClock)
    except UnansweredError as error:
        return not_checked(what, str(error))
    if clock.is_kept:
        return ok(what, "the clock is synchronised")
    return warn(
        what,
        "nothing keeps the clock right, and keys and certificates end by it; install "
        "systemd-timesyncd or chrony there",
    )


def _names(me: FleetHost, ask: Ask) -> str:
    """What every deploy fetches from; whatever else is fetched has a check of its own."""
    archives: Archives = ask(AptArchives)
    if archives.by_proxy:
        return "apt asks a proxy, which looks for its servers"
    if unknown := [name for name, is_known in archives.names.items() if not is_known]:
        raise FleetError(
            f"{me.name}: apt's servers have no address there: {', '.join(unknown)}; correct the "
            "host's resolver (/etc/resolv.conf), or its apt sources"
        )
    return f"{', '.join(archives.names) or 'no server of apt'}: found"


def _address(me: FleetHost, ask: Ask) -> str:
    refuse_missing_address(me, ask(HostAddresses))
    return f"{me[Platform].private_address} is the host's"


def _ports(me: FleetHost, fleet: Fleet, ask: Ask) -> str:
    services = fleet.services(me)
    refuse_taken_ports(me, services, ask(Listeners))
    ports = sorted({service.port for service in services if service.ours})
    return f"{', '.join(map(str, ports)) or 'none'}: nobody else has them"


def _directories(me: FleetHost, fleet: Fleet, ask: Ask) -> str:
    directories = fleet.directories(me)
    refuse_directories(me, directories, ask(Places, paths=[item.path for item in directories]))
    return f"{len(directories)} of them can be ours"


def _secrets(me: FleetHost, fleet: Fleet, ask: Ask) -> Line:
    what = "secrets"
    if fleet.secrets.read(_STORE_ID) is not None:
        return judged(what, lambda: _store(me, fleet, ask))
    # Nothing is made by looking.
    there = judged(what, lambda: " ".join(ask(FileStates, paths=[SECRETS_STORE])))
    if there.verdict is not Verdict.OK:
        return there
    if there.text:
        return fail(
            what,
            f"{fleet.secrets.root} has none, and the host has keys of another store; bring that "
            "here from the machine that deployed last",
        )
    return warn(what, f"{fleet.secrets.root} has none yet; the first deploy makes them")


def _store(me: FleetHost, fleet: Fleet, ask: Ask) -> str:
    note = secrets_note(fleet)
    refuse_other_store(me, fleet, ask(FileStates, paths=[note.path]).get(note.path))
    return f"of {fleet.secrets.root}"
