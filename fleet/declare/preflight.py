"""What a capability tells of a host before a deploy: for `fleet doctor`, which knows none by name.

A refusal of the deploy and a failed check are one judgement: `judged` calls the function that the
deploy calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fleet.kit.errors import FleetError
from fleet.kit.facts.reach import Reach, Reachable

# Asks the host for a fact, by the fact's class and arguments: `host.get_fact`, or the like.
Ask = Callable[..., Any]


class Verdict(StrEnum):
    """What a check found; of the worst, `NOT_CHECKED`, nothing is known."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    NOT_CHECKED = "not checked"


class UnansweredError(FleetError):
    """A host did not answer a question: what hangs on it is not checked, and no failure."""


@dataclass(frozen=True)
class Line:
    """One check of one host: what was looked at, and what is so, with the fix where it is bad."""

    verdict: Verdict
    what: str
    text: str = ""


def ok(what: str, text: str = "") -> Line:
    """As it should be."""
    return Line(Verdict.OK, what, text)


def warn(what: str, text: str) -> Line:
    """A deploy goes on with it, and whoever deploys should know."""
    return Line(Verdict.WARN, what, text)


def fail(what: str, text: str) -> Line:
    """A deploy is refused, or cannot work."""
    return Line(Verdict.FAIL, what, text)


def not_checked(what: str, text: str) -> Line:
    """Nobody knows, and why."""
    return Line(Verdict.NOT_CHECKED, what, text)


def judged(what: str, judge: Callable[[], str | None]) -> Line:
    """The check `what`: a refusal that `judge` raises is a failure, and what it returns is said.

    Raises:
        Nothing of the project's own: an unanswered question is a line too.
    """
    try:
        return ok(what, judge() or "")
    except UnansweredError as error:
        return not_checked(what, _words(error))
    except FleetError as error:
        return fail(what, _words(error))


def reached(
    ask: Ask, what: str, url: str, environment: Mapping[str, str], wants: tuple[int, ...] = (200,)
) -> Line:
    """The check that the host gets an answer at `url`, one of the HTTP statuses `wants`."""
    try:
        found: Reach = ask(Reachable, url=url, environment=dict(environment))
    except UnansweredError as error:
        return not_checked(what, _words(error))
    if found.why:
        return fail(what, f"{url}: {found.why}; open the way to it, or declare a mirror or proxy")
    if not found.by_http:
        return ok(what, f"{url}: its port takes connections; the host has no curl yet to ask with")
    if found.status not in wants:
        return fail(what, f"{url}: it answers {found.status}; correct the setting, or the mirror")
    return ok(what, f"{url} answers")


def _words(error: FleetError) -> str:
    return " ".join(" ".join(str(part) for part in error.args).split())
