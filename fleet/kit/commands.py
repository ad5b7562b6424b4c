"""Command lines that more than one operation yields."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from fleet.kit.connection.careful import Careful
from fleet.kit.journal import evidence_of

Commands = Generator[StringCommand, None, None]


@operation()
def barrier() -> Commands:
    """Have all hosts that come here done with what is before it, until any of them goes on.

    pyinfra orders steps by each host's own list only: what is late in the list of one is early in
    that of another.
    """
    # What others have done meanwhile may be among what was asked.
    if isinstance(connector := host.connector, Careful):
        connector.ask_anew()
    host.noop("nothing to do but to wait")
    yield from ()


def fail(message: str) -> StringCommand:
    """A command that prints `message` and fails its host only; the other hosts go on."""
    return StringCommand("printf '%s\\n'", QuoteString(message), ">&2; exit 1")


def or_journal(command: StringCommand, unit: str) -> StringCommand:
    """`command`, and when it fails the end of what `unit` said in this run as evidence."""
    # In a shell of its own: whichever way it ends, the evidence comes after it.
    return StringCommand(
        "(", command, ") || {", evidence_of(unit), ">&2; exit 1; }",
    )  # fmt: skip


def with_environment(environment: Mapping[str, str]) -> list[Any]:
    """Options of systemd-run that give its unit `environment`."""
    texts = [f"{name}={value}" for name, value in environment.items()]
    return [option for text in texts for option in ("--setenv", QuoteString(text))]


def verify_unit(name: str) -> StringCommand:
    """A command that refuses the unit file `name` in the current directory, and says why.

    `systemd-analyze verify` only warns of an unknown directive, and exits 0: a misspelt line of
    hardening would go unnoticed. What it says of other units is none of our business.
    """
    unit = QuoteString(name)
    return StringCommand(
        "said=$(systemd-analyze verify --man=no", QuoteString(f"./{name}"), "2>&1); rc=$?;",
        "printf '%s\\n' \"$said\" | grep -F", unit, ">&2 && exit 1; exit $rc",
    )  # fmt: skip


def when_answers(url: str, seconds: int) -> StringCommand:
    """A command that succeeds as soon as `url` answers 2xx, and fails after `seconds`."""
    return StringCommand(
        "n=0; until curl -fsS -o /dev/null --noproxy '*' --max-time 5",
        # The host asks itself; that its certificate is good is a matter of the compliance checks.
        "--insecure" if url.startswith("https:") else "",
        QuoteString(url),
        f"; do n=$((n + 1)); [ $n -lt {seconds} ] || exit 1; sleep 1; done",
    )
