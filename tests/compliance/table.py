"""The compliance table: one row a claim, over all hosts that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .outcomes import Outcome
from .results import Check

# How a row begins, and the colour that it has.
MARKS = {
    Outcome.HELD: ("ok", "green"),
    Outcome.SKIPPED: ("skip", ""),
    Outcome.WARNED: ("WARN", "yellow"),
    Outcome.UNCHECKED: ("?", "yellow"),
    Outcome.FAILED: ("FAIL", "red"),
}
_KNOWN = (Outcome.HELD, Outcome.WARNED)
_LONGEST_REASON = 300  # characters; the whole of it is with the evidence


def render(checks: Iterable[Check]) -> list[tuple[str, str]]:
    """The table's lines, each with its colour."""
    checks = list(checks)
    width = max((len(item.claim) for item in checks), default=0)
    names = max([9, *(len(item.capability) for item in checks)])
    lines = []
    for item in checks:
        mark, color = MARKS[item.outcome]
        bad = {*item.hosts(Outcome.FAILED), *item.hosts(Outcome.UNCHECKED)}
        good = set(item.hosts(*_KNOWN)) - bad
        total = len({result.host for result in item.results})
        text = (
            f"{mark:<4}  {item.capability:<{names}} {item.claim:<{width}}  {len(good)}/{total}  "
            f"{'; '.join(_notes(item))}"
        )
        lines.append((color, text.rstrip()))
    return lines


def summary(checks: Iterable[Check]) -> str:
    """The last line: how many claims fared how."""
    words = {
        Outcome.HELD: "held", Outcome.WARNED: "with a warning", Outcome.FAILED: "failed",
        Outcome.UNCHECKED: "not checked", Outcome.SKIPPED: "not declared here",
    }  # fmt: skip
    counts = dict.fromkeys(words, 0)
    for item in checks:
        counts[item.outcome] += 1
    return ", ".join(f"{number} {words[outcome]}" for outcome, number in counts.items() if number)


def _notes(check: Check) -> Iterator[str]:
    """What is bad, each reason once, and what was measured."""
    reasons: dict[str, list[str]] = {}
    for result in check.results:
        if result.outcome in (Outcome.FAILED, Outcome.WARNED):
            reasons.setdefault(result.reason[:_LONGEST_REASON], []).append(result.host)
    for reason, hosts in reasons.items():
        yield f"{', '.join(sorted(set(hosts)))}: {reason}"
    if unchecked := check.hosts(Outcome.UNCHECKED):
        yield f"not checked on {', '.join(unchecked)}"
    yield from sorted(
        f"{result.host} {text}"
        for result in check.results
        if result.outcome in _KNOWN
        for text in result.measured
    )
