"""Images that are pulled while the deploy shows it."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.docker.facts import DockerImage
from fleet.kit.commands import Commands, or_journal
from fleet.kit.facts.jobs import LoggedJob
from fleet.kit.files import ManagedFile, install_files
from fleet.kit.jobs import run_job, start_job
from fleet.kit.paths import LIB
from fleet.kit.render import host_program
from fleet.kit.sandbox import sandbox

PULLER = f"{LIB}/pull-image"


@operation()
def pull_image(image: str, unit: str) -> Commands:
    """Have `image` in Docker; the host pulls it in `unit`, whatever becomes of the connection.

    A pull that would take the last room fails, and leaves nothing.
    """
    if host.get_fact(DockerImage, reference=image):
        host.noop(f"{image} is there")
        return
    puller = ManagedFile(PULLER, host_program("kit", "pull-image"), mode="755")
    yield from install_files._inner(files=[puller])
    # Docker's client alone; what it is logged in to as root lies in its home.
    closed = sandbox(ProtectHome="read-only")
    start = start_job(unit, closed, PULLER, QuoteString(image))
    yield from run_job(
        unit, start, lambda: host.get_fact(LoggedJob, unit=unit), lambda _: f"pulling {image}"
    )
    yield or_journal(
        StringCommand("docker image inspect --format", "'{{.Id}}'", QuoteString(image)), unit
    )
