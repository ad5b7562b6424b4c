"""What `fleet doctor` looks at before a host is closed: by the refusals of the deploy."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import Ask, Line, judged, ok, warn
from fleet.firewall.facts import (
    Bridges,
    Filters,
    Login,
    LoginCarrier,
    OtherFilters,
    OtherFirewalls,
    SshLogin,
    Uplinks,
)
from fleet.firewall.preflight import (
    refuse_closed_by_others,
    refuse_closed_carrier,
    refuse_lockout,
    refuse_open_uplinks,
    refuse_other_firewalls,
    remarks,
)
from fleet.firewall.probes import bridges, probes
from fleet.firewall.settings import Firewall


def checks(me: FleetHost, fleet: Fleet, ask: Ask) -> Iterator[Line]:
    """Other firewalls and filters, the login that must stay open, tunnels and uplinks."""
    if me[Firewall].backend == "none":
        yield ok("firewall", "firewall_backend = 'none': yours")
        return
    yield judged("other firewalls", lambda: _others(me, fleet, ask))
    yield judged("login stays open", lambda: _login(me, ask))
    yield judged("uplinks", lambda: _uplinks(me, ask))
    yield from _filters(me, fleet, ask)


def _others(me: FleetHost, fleet: Fleet, ask: Ask) -> str:
    refuse_other_firewalls(me, fleet, ask(OtherFirewalls))
    return "neither ufw nor firewalld is in force"


def _login(me: FleetHost, ask: Ask) -> str:
    login: Login | None = ask(SshLogin, _sudo=False)
    refuse_lockout(me, login)
    if login is None:
        return "this connection is no SSH"
    refuse_closed_carrier(me, login, ask(LoginCarrier, source=str(login.source)))
    return f"from {login.source} on port {login.port}"


def _uplinks(me: FleetHost, ask: Ask) -> str:
    names: list[str] = ask(Uplinks)
    refuse_open_uplinks(me, names)
    return ", ".join(names) or "none"


def _filters(me: FleetHost, fleet: Fleet, ask: Ask) -> Iterator[Line]:
    what = "other filters"
    said: list[str] = []

    def look() -> str:
        login: Login | None = ask(SshLogin, _sudo=False)
        needed = probes(me, fleet, login.source if login else None)
        found: Filters = ask(
            OtherFilters, probes=[str(probe) for probe in needed], bridges=bridges(me)
        )
        refuse_closed_by_others(me, needed, found)
        said.extend(remarks(me, needed, found, ask(Bridges)))
        return "none closes what is declared"

    yield judged(what, look)
    for line in said:
        yield warn(what, line)
