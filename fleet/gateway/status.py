"""A gateway that runs: whom it serves from, what is in flight, and what of it ends soon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from pyinfra.api import QuoteString, StringCommand

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import ENDS_SOON, Look, Told
from fleet.gateway.declared import previous_gateway_key
from fleet.gateway.facts import DrainedHosts, SeenServers, ServedServers, seen_servers
from fleet.gateway.files import health_origin, ready_servers
from fleet.gateway.paths import GATEWAY_CERTIFICATE, GATEWAY_UNIT
from fleet.gateway.settings import Gateway
from fleet.gateway.traffic import LOOK, traffic

_SOON = timedelta(days=ENDS_SOON)


def looks(me: FleetHost, fleet: Fleet) -> Iterator[Look]:
    """Whether nginx answers, its requests at the servers, who is drained, and its certificate."""
    health = QuoteString(f"{health_origin(me)}/healthz")
    yield Look(
        (
            StringCommand(
                "curl -fsSk -o /dev/null --noproxy '*' --max-time 2", health, "&& echo yes"
            ),
        ),
        lambda found: _tell_health(*found),
    )
    yield Look(
        (
            LOOK,
            DrainedHosts().command(),
            ServedServers().command(),
        ),
        lambda found: _tell_servers(me, fleet, *found),
    )
    if me[Gateway].backends:
        yield Look((SeenServers().command(),), lambda found: _tell_backends(me, *found))
    if me[Gateway].tls != "off":
        yield Look(
            (StringCommand("cat", QuoteString(GATEWAY_CERTIFICATE)),),
            lambda found: _tell_certificate(*found),
        )
    yield Look((), lambda _: _tell_keys(me, fleet))


def _tell_health(answered: list[str]) -> Iterator[Told]:
    answers = answered == ["yes"]
    yield Told(
        "gateway answers" if answers else "gateway does not answer",
        {"answers": answers},
        "" if answers else f"nginx does not answer: see `journalctl -u {GATEWAY_UNIT}` there",
    )


def _tell_servers(
    me: FleetHost, fleet: Fleet, flying: list[str], drained_lines: list[str], served: list[str]
) -> Iterator[Told]:
    """What this gateway knows of the other hosts, and of how many of them it sends nothing to."""
    busy = traffic(flying)
    drained = DrainedHosts().process(drained_lines)
    several = f" from {me.name}" if len(fleet.running(Gateway)) > 1 else ""
    flights: Counter[str] = Counter()
    for server in fleet.servers():
        flights[server.host.name] += busy.to([server]) if busy else 0
    if busy is None:
        yield Told(problem="nginx does not tell its requests in flight: deploy the gateway")
    ours = {server.host.name for server in fleet.servers() if server.ours}
    for name, number in flights.items():
        is_drained = name in drained
        if name not in ours:
            # No row of its own would tell it.
            note = f", drained {drained[name]}".rstrip() if is_drained else ""
            yield Told(f"{name}: {number} in flight{note}", {"in_flight_at": {name: number}})
            continue
        values = {"in_flight": {me.name: number}, "drained_by": {me.name: is_drained}}
        yield Told(f"{number} in flight{several}", values, about=name)
        if is_drained:
            note = drained[name]
            yield Told(
                f"drained{several} {note}".rstrip(), {"drained_note": {me.name: note}}, about=name
            )
    yield from _not_served(me, fleet, ServedServers().process(served))
    yield Told("", {"requests": sum(flights.values()), "drained": sorted(drained)})
    if flights and set(flights) <= set(drained):
        problem = "every host is drained, so nobody is served; `fleet undrain` one of them"
        yield Told(problem=problem)


def _not_served(me: FleetHost, fleet: Fleet, served: tuple[str, ...] | None) -> Iterator[Told]:
    """The servers that no deploy has found ready yet; of a gateway of which nothing is known, none.

    Its own part says that it does not answer.
    """
    for server in fleet.servers():
        if served is None or not server.ours:
            continue
        if server.name not in ready_servers(fleet, served):
            yield Told(
                "not served yet",
                problem=(
                    f"{server.name} gets no requests from {me.name}: no deploy has found it ready; "
                    "see its models, and deploy"
                ),
                about=server.host.name,
            )


def _tell_backends(me: FleetHost, lines: list[str]) -> Iterator[Told]:
    """Whether each backend answers: nobody else can tell."""
    seen = seen_servers(lines)
    if seen is None:
        yield Told(problem="nginx does not tell which backends answer: deploy the gateway")
        return
    for item in me[Gateway].backends:
        one = seen.get(item.name)
        is_well = one is not None and one.well
        text = f"backend {item.name}" if is_well else f"backend {item.name} does not answer"
        why = one.why if one and one.why else "nobody has looked at it yet"
        problem = "" if is_well else f"backend {item.name} gets no requests: {why}"
        yield Told(text, {"backends": {item.name: bool(is_well)}}, problem)


def _tell_certificate(pem: list[str]) -> Iterator[Told]:
    try:
        certificate = x509.load_pem_x509_certificates("\n".join(pem).encode())[0]
    except (ValueError, IndexError):
        problem = f"{GATEWAY_CERTIFICATE} holds no certificate: deploy"
        yield Told("no certificate", {"certificate_ends": None}, problem)
        return
    ends = certificate.not_valid_after_utc
    values = {"certificate_ends": ends.isoformat()}
    left = ends - datetime.now(UTC)
    problem = ""
    if left < _SOON:
        problem = (
            f"its certificate {_ends(ends)}: deploy renews one of the fleet's own authority; a "
            "given one is replaced in gateway_tls_certificate; for one of ACME see `journalctl -u "
            "certbot` there"
        )
    yield Told(f"certificate until {ends:%Y-%m-%d}", values, problem)


def _tell_keys(me: FleetHost, fleet: Fleet) -> Iterator[Told]:
    now = datetime.now(UTC)
    ending: dict[str, str] = {}
    for key in me[Gateway].keys:
        if key.expires is not None and key.expires < now + _SOON:
            ending[key.name] = key.expires.isoformat()
            yield Told(
                problem=f"the key {key.name!r} {_ends(key.expires)}: give it a later `expires`, or "
                "take it out of gateway_keys, and deploy"
            )
        before = previous_gateway_key(fleet, key.name)
        if before is not None and now < before.until < now + _SOON:
            yield Told(
                f"old value of key {key.name!r} until {before.until:%Y-%m-%d}",
                {"overlaps": {key.name: before.until.isoformat()}},
            )
    yield Told("", {"keys_ending": ending})


def _ends(when: datetime) -> str:
    word = "ended" if when <= datetime.now(UTC) else "ends"
    return f"{word} on {when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
