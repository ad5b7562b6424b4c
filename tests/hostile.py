"""Values as a mistake, a bad day or an attacker writes them into an inventory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.fleets import ALTERNATIVE, Hosts

# What means something to a shell, nginx, nft, systemd, Jinja, JSON, an INI file or a terminal,
# beside letters that only look like others.
PIECES = (
    "'", '"', "\\", "`", "$(id)", "${x}", "$host", ";", "&&", "|", "#", "%", "%h", "{", "}",
    "{{ x }}", "<", ">", "*", "?", "~", "!", " ", "\t", "\n", "\r", "\x00", "\x1b[2J", "\x7f",
    "\x85", "\xa0", "\u2028", "\u202e", "\ufeff", "\ud800", "\u0663", "\uff11", "\u017f", "\u212a",
    "\u00e9", "/", "//", "/./", "/..", "-", "--x", ".", "..", ":", "::", "@", ",", "=", "[", "]",
    "(", ")", "^", "default", "include", "hostnames", "volatile", "0", "00", "-1", "1e400", "NaN",
    "True", "None", "%eth0", "/0", "/33", "fe80::1%eth0", "9" * 40,
)  # fmt: skip
_NUMBERS = (0, -1, 1, 2**31, 2**32, 2**63, 10**40, 0.5, -0.0, 1e308, float("inf"), float("nan"))

_texts = st.one_of(
    st.sampled_from(PIECES),
    st.text(max_size=20),
    st.builds("".join, st.lists(st.sampled_from(PIECES), max_size=4)),
    st.just("a" * 5000),
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(_NUMBERS),
    st.integers(),
    st.floats(),
    _texts,
    st.binary(max_size=8),
    st.dates(),
)
# Anything that Python can write down.
ANYTHING = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.builds(tuple, st.lists(inner, max_size=3)),
        st.dictionaries(_texts, inner, max_size=3),
    ),
    max_leaves=6,
)


@dataclass(frozen=True)
class Mutation:
    """`value` in the place of what the alternative fleet declares as `key` of `host`."""

    host: str
    key: str
    value: Any

    @property
    def hosts(self) -> Hosts:
        """The fleet, so declared."""
        groups, data = ALTERNATIVE[self.host]
        return {**ALTERNATIVE, self.host: (groups, {**data, self.key: self.value})}


def mutations() -> st.SearchStrategy[Mutation]:
    """One setting of the alternative fleet otherwise: hostile, or right but for a piece of it."""
    places = [(host, key) for host, (_, data) in ALTERNATIVE.items() for key in sorted(data)]

    def mutated(place: tuple[str, str]) -> st.SearchStrategy[Mutation]:
        host, key = place
        near = _near(ALTERNATIVE[host][1][key])
        values = st.one_of(near, near, near, ANYTHING)
        return st.builds(Mutation, st.just(host), st.just(key), values)

    return st.sampled_from(places).flatmap(mutated)


def _near(value: Any) -> st.SearchStrategy[Any]:
    """`value` with one thing in it exchanged, at any depth."""
    if isinstance(value, str):
        return st.one_of(_spliced(value), _scalars)
    if isinstance(value, bool) or not isinstance(value, list | Mapping):
        return st.one_of(st.sampled_from(_NUMBERS), st.integers(-10, 70000), _scalars)
    parts = list(_parts(value))
    if not parts:
        return ANYTHING
    return st.sampled_from(parts).flatmap(
        lambda part: _near(value[part]).map(lambda new: _with(value, part, new))
    ) | st.builds(lambda new: _added(value, new), ANYTHING)


def _spliced(text: str) -> st.SearchStrategy[str]:
    """`text` with a piece put somewhere into it, or instead of the rest of it."""
    return st.builds(
        lambda at, piece, keep: text[:at] + piece + (text[at:] if keep else ""),
        st.integers(0, len(text)),
        st.one_of(st.sampled_from(PIECES), st.characters()),
        st.booleans(),
    )


def _parts(value: list[Any] | Mapping[str, Any]) -> Iterator[Any]:
    return iter(range(len(value))) if isinstance(value, list) else iter(value)


def _with(value: Any, part: Any, new: Any) -> Any:
    if isinstance(value, list):
        return [*value[:part], new, *value[part + 1 :]]
    return {**value, part: new}


def _added(value: Any, new: Any) -> Any:
    if isinstance(value, list):
        return [*value, new]
    return {**value, (new if isinstance(new, str) else "x"): new}
