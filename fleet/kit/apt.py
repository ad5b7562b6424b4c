"""The one way to a host's apt and dpkg: it waits for whoever uses them, and never asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from pyinfra import host, logger, state
from pyinfra.api import Host, QuoteString, StringCommand
from pyinfra.context import ctx_host

from fleet.kit.commands import Commands
from fleet.kit.facts.apt import WHEN_APT_IS_FREE, AptHolder, KeptFiles

PATIENCE = 600  # seconds: a fresh machine upgrades itself in its first minutes

# Hosts whose package lists are of this run, and of the sources that they have now.
_REFRESHED: WeakSet[Host] = WeakSet()


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
    if masked_unit is not None:
        unit = QuoteString(masked_unit)
        command = StringCommand(
            "systemctl mask --runtime --quiet", unit, ";", command, "; rc=$?;",
            "systemctl unmask --runtime --quiet", unit, "; exit $rc", _stdin=program,
        )  # fmt: skip
    with kept_files_told():
        yield command


@contextmanager
def kept_files_told() -> Iterator[None]:
    """Say which configuration files stayed as they were, and where the package's own lie."""
    if not state.is_executing:
        yield
        return
    before = host.get_fact(KeptFiles)
    yield
    for path in sorted(host.get_fact(KeptFiles) - before):
        kept = path.rpartition(".")[0]
        host.log(
            f"{kept} stays as it was before the package came; the package's own is {path}",
            log_func=logger.warning,
        )


def refresh() -> Commands:
    """Have package lists of this run, and dpkg whole: an installation cut short stops apt."""
    yield from apt("dpkg --configure -a")
    if _this() not in _REFRESHED:
        yield from apt("apt-get update")
        if state.is_executing:
            _REFRESHED.add(_this())


def sources_changed() -> None:
    """Have the next installation on this host fetch the package lists again."""
    _REFRESHED.discard(_this())


def _this() -> Host:
    """The host itself, which `host` only stands for."""
    this: Host = ctx_host.get()  # type: ignore[no-untyped-call]
    return this
