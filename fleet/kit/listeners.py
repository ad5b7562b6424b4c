"""Whether what answers on a port is what was started, and not something else."""

from __future__ import annotations

from pyinfra.api import QuoteString, StringCommand

from fleet.kit.facts.listeners import WHO_LISTENS


def is_own(unit: str, port: int, container: str | None = None) -> StringCommand:
    """A command that fails, and says who has `port`, unless a process of `unit` listens on it.

    Of a unit that runs a `container`, Docker has the port for that one.
    """
    listeners = StringCommand("sh -c", QuoteString(WHO_LISTENS), "who-listens")
    if container is None:
        own = StringCommand(listeners, QuoteString(unit), f"| grep -q ':{port}|'")
    else:
        # What does not run publishes nothing.
        own = StringCommand("docker port", QuoteString(container), f"| grep -q -- '-> .*:{port}$'")
    return StringCommand(
        own, "|| {", listeners, f"| grep ':{port}|' >&2;", "printf '%s\\n'",
        QuoteString(f"{unit} does not listen on port {port} itself; what does is above"),
        ">&2; exit 1; }",
    )  # fmt: skip
