"""Ollama's releases and models on a host."""

from __future__ import annotations

from typing import Any

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.facts.jobs import FetchJob, Job, ModelsJob, model_progress
from fleet.facts.ollama import OllamaModels, OllamaReleases
from fleet.operations.commands import Commands
from fleet.operations.jobs import Meter, progress, run_job
from fleet.paths import LIB, LOADER_STATE, LOADER_UNIT, OLLAMA_CURRENT, OLLAMA_ROOT


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


@operation()
def provide_models(url: str, models: list[str], wait_timeout: float | None) -> Commands:
    """Have `models` (names with tags) on the host, by a run of the loader unit.

    `wait_timeout` is in seconds; None starts the loader and does not wait for it.
    """
    present: dict[str, Any] = host.get_fact(OllamaModels, url=url)
    missing = sorted(set(models) - set(present))
    if not missing:
        host.noop(f"{', '.join(models)} present")
        return
    start = StringCommand(
        "systemctl reset-failed --quiet", LOADER_UNIT, "2>/dev/null;",
        "systemctl start --no-block", LOADER_UNIT,
    )  # fmt: skip
    if wait_timeout is None:
        yield start
        return

    def describe(job: Job) -> str:
        parts = [
            f"{name}: {entry['phase']} "
            f"{progress(entry['completed'], entry['total'], entry['rate'])}"
            for name, entry in model_progress(job).items()
            if entry["phase"] not in ("waiting", "ready")
        ]
        return "; ".join(parts) or "models: starting"

    def look() -> Job:
        return host.get_fact(ModelsJob, unit=LOADER_UNIT, path=LOADER_STATE)

    yield from run_job(LOADER_UNIT, start, look, describe, wait_timeout)
