"""What a unit said, of its present run alone."""

from __future__ import annotations

from pyinfra.api import QuoteString, StringCommand


def journal_of(unit: str, lines: int) -> StringCommand:
    """A command that prints the last `lines` of what `unit` said since it was started.

    What an earlier run said would be taken for the reason of this one. Where systemd itself has
    restarted the unit, the runs before are of the same cause; where it knows of no run, there is
    nothing better than all of them.
    """
    name = QuoteString(unit)
    return StringCommand(
        "{ id=$(systemctl show --value -p InvocationID --", name, "2>/dev/null);",
        "again=$(systemctl show --value -p NRestarts --", name, "2>/dev/null);",
        'case "$id/$again" in /*|*/[1-9]*) set -- -u', name,
        ';; *) set -- "_SYSTEMD_INVOCATION_ID=$id" + "INVOCATION_ID=$id";; esac;',
        f'journalctl --no-pager -o cat -n {lines} "$@"; }}',
    )  # fmt: skip


def evidence_of(unit: str) -> StringCommand:
    """A command that prints the end of `unit`'s journal, and again what it said last by itself.

    systemd has the last word in a journal ("Consumed 2 s CPU time"), and the last line of what a
    step printed is taken for the reason of its failure.
    """
    name = QuoteString(unit)
    return StringCommand(
        "{", journal_of(unit, 20), "; id=$(systemctl show --value -p InvocationID --", name,
        "2>/dev/null); said=$(journalctl -q --no-pager -o cat -n 1",
        '"_SYSTEMD_INVOCATION_ID=$id" 2>/dev/null); [ -z "$said" ] ||',
        "printf '%s: %s\\n'", name, '"$said"; }',
    )  # fmt: skip
