"""The one way to a host's apt and dpkg: it waits for whoever uses them, and never asks."""

from __future__ import annotations

from pyinfra import host, state
from pyinfra.api import QuoteString, StringCommand

from fleet.kit.commands import Commands
from fleet.kit.facts.apt import WHEN_APT_IS_FREE, AptHolder

PATIENCE = 600  # seconds: a fresh machine upgrades itself in its first minutes


def apt(*words: str | QuoteString, masked_unit: str | None = None) -> Commands:
    """Run apt-get, apt-mark or dpkg with `words`, as soon as nobody else holds a lock of theirs.

    Says for whom it waits. `masked_unit` cannot be started meanwhile, and one that runs goes on;
    the mask is gone at the end, and after a reboot.
    """
    if state.is_executing and (holder := host.get_fact(AptHolder)):
        host.log(f"waits up to {PATIENCE} s: {holder}")
    # On stdin: the first step of a bare host needs it already.
    program = WHEN_APT_IS_FREE.splitlines()
    command = StringCommand("sh -s --", PATIENCE, *words, _stdin=program)
    if masked_unit is None:
        yield command
        return
    unit = QuoteString(masked_unit)
    yield StringCommand(
        "systemctl mask --runtime --quiet", unit, ";", command, "; rc=$?;",
        "systemctl unmask --runtime --quiet", unit, "; exit $rc", _stdin=program,
    )  # fmt: skip


def refresh() -> Commands:
    """Have new package lists, and dpkg whole: an installation that was cut short stops apt."""
    yield from apt("dpkg --configure -a")
    yield from apt("apt-get update")
