"""The stores of a release, and from which of their versions to which their data may go.

Each store's own rules: PostgreSQL reads the files of its own major version only; Weaviate must be
passed one minor version at a time; Redis reads the files of older ones. None goes back.
https://www.postgresql.org/docs/current/upgrading.html
https://docs.weaviate.io/deploy/migration
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dify_health import DATABASE, Services

Version = tuple[int, ...]  # as many numbers as the tag says


_NO_WORD = "from which version to which these tags do not tell"


def _postgres(before: Version, after: Version) -> str | None:
    if before[0] == after[0]:
        return None
    return "PostgreSQL reads the files of its own major version only"


def _weaviate(before: Version, after: Version) -> str | None:
    if len(before) < 2 or len(after) < 2:
        return _NO_WORD
    if before[0] == after[0] and after[1] - before[1] in (0, 1):
        return None
    return "Weaviate goes up one minor version at a time: take a release in between"


def _redis(before: Version, after: Version) -> str | None:
    # A tag that says less floats with the newest.
    said = min(len(before), len(after))
    return None if after[:said] >= before[:said] else "Redis does not read the files of a newer one"


_RULES: dict[str, Callable[[Version, Version], str | None]] = {
    DATABASE: _postgres,
    "weaviate": _weaviate,
    "redis": _redis,
}


def stores_problem(before: Services, after: Services) -> str | None:
    """Why the data of the services `before` cannot be of those `after`, or None."""
    found = (
        _problem(name, before[name]["image"], after.get(name, {}).get("image"))
        for name in _RULES
        if name in before
    )
    return next(filter(None, found), None)


def _problem(name: str, before: str, after: str | None) -> str | None:
    if after is None:
        return f"{name}: the release has none, and what is in it would be lost"
    (kind, tag), (new_kind, new_tag) = _parts(before), _parts(after)
    shown = f"{name}: {kind}:{tag} to {new_kind}:{new_tag}"
    if (kind, tag) == (new_kind, new_tag):
        return None
    if kind != new_kind:
        return f"{shown}: another program, which may not read what is there"
    old, new = _version(tag), _version(new_tag)
    if old is None or new is None:
        return f"{shown}: {_NO_WORD}"
    reason = _RULES[name](old, new)
    return f"{shown}: {reason}" if reason else None


def _parts(image: str) -> tuple[str, str]:
    """An image's name, whatever mirror it is from, and its tag."""
    place = image.partition("@")[0]
    name, _, tag = place.rpartition("/")[2].partition(":")
    return name, tag


def _version(tag: str) -> Version | None:
    found = re.match(r"v?(\d+(?:\.\d+)*)", tag)
    return tuple(map(int, found[1].split("."))) if found else None
