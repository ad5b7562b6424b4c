"""Ollama's releases on a host."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.facts.jobs import FetchJob, Job
from fleet.facts.ollama import OllamaReleases
from fleet.operations.commands import Commands
from fleet.operations.jobs import Meter, run_job
from fleet.paths import LIB, OLLAMA_CURRENT, OLLAMA_ROOT


@operation()
def install_release(
    version: str, url: str, sha256: str, https_proxy: str | None = None
) -> Commands:
    """Have the tarball at `url` unpacked beside the other releases, and `current` point to it.

    A tarball with another SHA-256 changes nothing and is reported with both sums.
    """
    directory = f"{OLLAMA_ROOT}/{version}"
    release = host.get_fact(OllamaReleases, version=version)
    if release.get("sha256") != sha256:
        unit = f"llm-fleet-fetch-ollama-{version}.service"
        proxy = ["--setenv", QuoteString(f"HTTPS_PROXY={https_proxy}")] if https_proxy else []
        start = StringCommand(
            "systemctl is-active --quiet", unit, "|| {",
            "systemctl reset-failed --quiet", unit, "2>/dev/null;",
            "systemd-run --quiet --unit", unit, *proxy,
            f"{LIB}/fetch-release", QuoteString(url), sha256, directory, "; }",
        )  # fmt: skip
        meter = Meter()

        def describe(job: Job) -> str:
            completed, total = (int(line or 0) for line in job.report)
            return f"{url.rsplit('/', 1)[-1]}: {meter.read(completed, total)}"

        yield from run_job(
            unit, start, lambda: host.get_fact(FetchJob, unit=unit, directory=directory), describe
        )
    if release.get("current") != directory:
        # A fetch that somebody stopped has not failed either, so look at what there is. The link
        # is renamed over the old one: there is no moment without one.
        yield StringCommand(
            f'[ "$(cat {directory}/.sha256)" = {sha256} ] &&',
            "ln -sfn", directory, f"{OLLAMA_CURRENT}.new",
            "&& mv -T", f"{OLLAMA_CURRENT}.new", OLLAMA_CURRENT,
        )  # fmt: skip
