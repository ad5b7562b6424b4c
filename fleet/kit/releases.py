"""A release's tarball, which the host itself fetches, checks and unpacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import QuoteString

from fleet.kit.commands import Commands, with_environment
from fleet.kit.facts.jobs import Download, FetchJob, runtime_directory
from fleet.kit.facts.places import Place, Places
from fleet.kit.files import ManagedFile
from fleet.kit.jobs import Meter, run_job, start_job
from fleet.kit.paths import LIB
from fleet.kit.render import host_program
from fleet.kit.sandbox import sandbox

FETCHER = f"{LIB}/fetch-release"


@dataclass(frozen=True)
class Tarball:
    """A release's tarball: its address, its SHA-256, and the directory that it is unpacked as."""

    url: str
    sha256: str
    directory: str


def fetcher_file() -> ManagedFile:
    """The program that fetches a release and checks it."""
    return ManagedFile(FETCHER, host_program("kit", "fetch-release"), mode="755")


def fetch_release(
    unit: str, tarball: Tarball, environment: Mapping[str, str], shown: str
) -> Commands:
    """Have `tarball` fetched and unpacked by `unit`; `shown` names it meanwhile.

    A tarball with another SHA-256 changes nothing and is reported with both sums. `environment` is
    what curl is told of a proxy. Needs `fetcher_file` in place.
    """
    releases = PurePosixPath(tarball.directory).parent
    # May be a link to another disk, which is what has to be open.
    place: Place = host.get_fact(Places, paths=[str(releases)])[str(releases)]
    # It fetches over the network, and unpacks beside other releases what all may read.
    closed = sandbox(
        RestrictAddressFamilies="AF_UNIX AF_INET AF_INET6",
        ReadWritePaths=f"{releases.parent} {PurePosixPath(place.resolved).parent}",
        UMask="0022",
    )
    fetch = (FETCHER, QuoteString(tarball.url), tarball.sha256, tarball.directory)
    meter = Meter()
    runtime = f"RuntimeDirectory={PurePosixPath(runtime_directory(unit)).name}"
    options = ("--property", runtime, *with_environment(environment))

    def describe(job: Download) -> str:
        return f"{shown}: {meter.read(job.completed, job.total)}"

    yield from run_job(
        unit,
        start_job(unit, closed, *options, *fetch),
        lambda: host.get_fact(FetchJob, unit=unit, directory=tarball.directory),
        describe,
    )
