"""A host that is refused while the others go on."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from pyinfra import host
from pyinfra.api import Host, StringCommand, operation
from pyinfra.context import ctx_host, ctx_state

from fleet.kit.commands import Commands, fail

# Host to what it is refused for by operations that were planned.
_REFUSED: WeakKeyDictionary[Host, list[str]] = WeakKeyDictionary()


def refusal(message: str) -> StringCommand:
    """`fail`, for a reason that is none of the deploy's own doing, and that it does not mend.

    So it holds when the operation is only planned, too: a dry run, and whoever is asked before a
    run, are told then. What an earlier step of the same deploy may mend is for `fail`.
    """
    _note(message)
    return fail(message)


def refused(here: Host) -> str:
    """Why the host is refused by what was planned for it; empty when it is not."""
    return "\n".join(dict.fromkeys(_REFUSED.get(here, ())))


def refuse(name: str, message: str) -> None:
    """Fail this host with `message` and change nothing on it; the rest of the fleet goes on.

    It holds at once: a run that looks into no operation before it executes them (`pyinfra --yes`)
    would come here only after others.
    """
    _note(f"{host.name}: {message}")
    _refuse(name=name, message=message)


@operation()
def _refuse(message: str) -> Commands:
    yield refusal(f"{host.name}: {message}")


def _note(message: str) -> None:
    if not ctx_state.get().is_executing:  # type: ignore[no-untyped-call]
        _REFUSED.setdefault(ctx_host.get(), []).append(message)  # type: ignore[no-untyped-call]
