"""What every host of a fleet has of this project."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import FleetHost
from fleet.kit.footprint import Part, Trace, files, folders, packages
from fleet.kit.paths import ETC, LIB, SECRETS_STORE, STARTED
from fleet.platform.record import DEPLOYED, DEPLOYING


def footprint(_: FleetHost) -> Iterator[Trace]:
    """Our own directories, and jobs that may still run."""
    yield Trace(
        f"`{ETC}`, `{LIB}`, `/var/lib/llm-fleet`",
        "settings; our programs; with what each unit was started. What was deployed, by whom and "
        "when: `deployed.json`, which goes last",
        (
            Part("unit", "llm-fleet-*"),
            *files(SECRETS_STORE),
            Part("tree", STARTED),
            Part("tree", LIB),
            Part("record", DEPLOYING),
            Part("record", DEPLOYED),
            *folders(STARTED.rpartition("/")[0], ETC),
        ),
    )
    yield Trace(
        "packages `curl`, `ca-certificates`, `gpg`, `python3`, `zstd`, `gzip`, `tar`",
        "where something needs them",
        packages("curl", "ca-certificates", "gpg", "python3", "zstd", "gzip", "tar"),
        "stays",
        "any program may use them",
    )
