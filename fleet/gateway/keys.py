"""The declared keys as nginx's tables: what `templates/gateway/nginx.conf.j2` is filled with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import SecretStr

from fleet.gateway.settings import GatewayKey
from fleet.kit.secrets import Previous


@dataclass(frozen=True)
class Limit:
    """Keys with one rate: a zone of nginx. `retry_after` is in seconds."""

    zone: str
    rate: str
    burst: int
    retry_after: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Concurrency:
    """Keys that may have the same number of requests in flight."""

    at_once: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Sources:
    """Keys that work from the same networks."""

    networks: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class KeyTables:
    """All that nginx's readable configuration knows of the keys; no value is in it."""

    admins: tuple[str, ...]
    overriding: tuple[str, ...]
    limits: tuple[Limit, ...]
    concurrency: tuple[Concurrency, ...]
    sources: tuple[Sources, ...]
    ends: Mapping[int, str]  # seconds since 1970 to the pattern of every later `$msec`


def key_tables(keys: Iterable[GatewayKey], previous: Mapping[str, Previous]) -> KeyTables:
    """The tables of `keys`; `previous` has the values before a rotation, by key name."""
    keys = tuple(keys)
    moments = [key.expires for key in keys if key.expires]
    moments += [_end(key, previous[key.name]) for key in keys if key.name in previous]
    return KeyTables(
        admins=tuple(key.name for key in keys if key.role == "admin"),
        overriding=tuple(key.name for key in keys if key.may_override),
        limits=tuple(_limits(keys)),
        concurrency=tuple(
            Concurrency(number, tuple(key.name for key in keys if key.concurrent == number))
            for number in sorted({key.concurrent for key in keys})
        ),
        sources=tuple(
            Sources(networks, tuple(key.name for key in keys if _networks(key) == networks))
            for networks in sorted({_networks(key) for key in keys if key.allow_from})
        ),
        ends={moment: at_or_after(moment) for moment in sorted({_epoch(m) for m in moments})},
    )


def key_entries(
    keys: Iterable[GatewayKey], values: Mapping[str, SecretStr], previous: Mapping[str, Previous]
) -> dict[str, str]:
    """Each value that may be let in, to its key's name; with an end, `$ended_<time>` follows.

    That variable is empty until then and `!` from then on, so nginx itself sees the end of a key
    at each request.
    """
    entries = {}
    for key in keys:
        if before := previous.get(key.name):
            end = _epoch(_end(key, before))
            entries[before.value.get_secret_value()] = f"{key.name}$ended_{end}"
        suffix = f"$ended_{_epoch(key.expires)}" if key.expires else ""
        # Last: after an interrupted rotation both values are the same one, which did not end.
        entries[values[key.name].get_secret_value()] = f"{key.name}{suffix}"
    return entries


def at_or_after(epoch: int) -> str:
    """A pattern for nginx's `$msec` (ten digits, a point, milliseconds) from `epoch` on."""
    digits = f"{epoch:010d}"
    if len(digits) != 10:
        raise ValueError(f"{epoch}: not a time between 1970 and 2286")
    later = [
        f"{digits[:place]}[{int(digit) + 1}-9][0-9]{{{9 - place}}}"
        for place, digit in enumerate(digits)
        if digit != "9"
    ]
    return f"^(?:{'|'.join([digits, *later])})[.]"


def _limits(keys: tuple[GatewayKey, ...]) -> Iterable[Limit]:
    for rate, declared in sorted(
        {(key.rate, key.burst) for key in keys if key.rate},
        key=lambda pair: (str(pair[0]), str(pair[1])),
    ):
        burst = math.ceil(rate.a_second) if declared is None else declared
        names = tuple(key.name for key in keys if (key.rate, key.burst) == (rate, declared))
        # nginx refuses a reload that gives a zone another key: all that differs is in the name.
        of_burst = "default" if declared is None else declared
        zone = f"rate_{rate.requests}{rate.unit}_{of_burst}"
        limit = f"{rate.requests}r/{rate.unit}"
        yield Limit(zone, limit, burst, math.ceil(1 / rate.a_second), names)


def _networks(key: GatewayKey) -> tuple[str, ...]:
    return tuple(sorted(str(network) for network in key.allow_from))


def _end(key: GatewayKey, previous: Previous) -> datetime:
    return min(previous.until, key.expires) if key.expires else previous.until


def _epoch(moment: datetime) -> int:
    return math.ceil(moment.timestamp())
