"""The live ruleset."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import StringCommand, operation

from fleet.facts.firewall import RulesetState
from fleet.operations.commands import Commands, or_journal


@operation()
def apply_ruleset(table: str, path: str, unit: str) -> Commands:
    """Have the kernel's `table` equal what `path` declares, whoever changed it since."""
    ruleset = host.get_fact(RulesetState, table=table, path=path)
    if ruleset.live and ruleset.live == ruleset.declared:
        host.noop(f"table {table} as declared")
        return
    yield or_journal(StringCommand("systemctl reload-or-restart", unit), unit)


@operation()
def remove_ruleset(table: str, path: str) -> Commands:
    """Have no `table`; nobody else's rules are touched."""
    if host.get_fact(RulesetState, table=table, path=path).live:
        yield StringCommand("nft delete table", table)
