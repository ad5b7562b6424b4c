"""Contradictions that settings of several capabilities can have alike, in an operator's words."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from fleet.declare.fleet import FleetHost
from fleet.declare.settings import Settings
from fleet.declare.types import Listen, looks_secret


def missing(host: FleetHost, settings: Settings, fixes: Mapping[str, str]) -> Iterator[str]:
    """A line for each field that `host` needs and has no value of.

    `fixes` is field to what it is set to.
    """
    for field, fix in fixes.items():
        if getattr(settings, field) is None:
            yield f"{host.name}: {settings.key(field)} is missing; set it to {fix}"


def unreachable(
    host: FleetHost, settings: Settings, listen: Listen, callers: Collection[object]
) -> Iterator[str]:
    """A line, when a service that listens on `listen` lets in no network of `callers`."""
    if listen == "private" and not callers:
        prefix = settings.prefix
        yield (
            f"{host.name}: {prefix}listen = 'private' without {prefix}allow_from: nobody could "
            "reach it; name at least one network"
        )


def not_for_env(
    host: FleetHost, settings: Settings, env: Collection[str], ours: Collection[str]
) -> Iterator[str]:
    """A line for those names in `env` that are `ours` to set, and one for what looks like a secret.

    `env` is the setting of that name.
    """
    key = f"{host.name}: {settings.prefix}env"
    if own := sorted(set(env) & set(ours)):
        yield (f"{key}: {', '.join(own)} is set by this project; leave it out, or use its setting")
    if shown := sorted(name for name in set(env) - set(ours) if looks_secret(name)):
        yield (
            f"{key}: {', '.join(shown)} looks like a secret, and an inventory is no place for one; "
            "leave it out"
        )
