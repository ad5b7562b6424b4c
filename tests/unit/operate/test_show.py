"""What an operator reads of a run, on a screen and in a file."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest
from rich.console import Console
from rich.text import Text

from fleet.operate import show
from fleet.operate.outcome import HostOutcome, Outcome

MODELS = "Models | Pull gpt-oss:20b"


def outcome_of(*events: dict[str, object], names: Iterable[str] = ("gpu1", "edge")) -> Outcome:
    outcome = Outcome(names)
    for number, event in enumerate(events):
        outcome.take(event, 10.0 * number)
    return outcome


def done(host: str, operation: str, *, changed: bool = True) -> dict[str, object]:
    return {"event": "done", "host": host, "operation": operation, "changed": changed}


def failed(host: str, reason: str) -> dict[str, object]:
    return {"event": "failed", "host": host, "reason": reason}


def plain(lines: Iterable[Text]) -> list[str]:
    return [line.plain for line in lines]


def test_summary_says_what_changed_restarted_and_failed_and_why() -> None:
    outcome = outcome_of(
        {"event": "connected", "host": "gpu1"},
        done("gpu1", "Ollama | Install"),
        {"event": "connected", "host": "edge"},
        done("edge", "Gateway | Write"),
        {"event": "restarts", "host": "edge", "unit": "nginx.service", "verb": "restart"},
        done("edge", "Gateway | Write"),
        done("gpu2", "Ollama | Install", changed=False),
        failed("gpu1", "gpu1: Ollama | Run: no [space] left on /opt"),
        names=("gpu1", "edge", "gpu2"),
    )  # fmt: skip
    assert plain(show.summary(outcome)) == [
        "gpu1  FAILED after 10 s: Ollama | Run: no [space] left on /opt",
        "edge  changed: Gateway | Write; restarted nginx.service (50 s)",
        "Nothing to change on gpu2.",
    ]


def test_summary_of_a_thousand_hosts_fits_on_a_screen() -> None:
    names = [f"gpu{number}" for number in range(1000)]
    events = [failed(name, "no connection") for name in names[:300]]
    events += [done(name, f"Step {step}") for name in names[300:600] for step in range(9)]
    lines = plain(show.summary(outcome_of(*events, names=names)))
    assert len(lines) <= 30
    assert "... and 288 more failed; --json names all" in lines
    assert lines[-1] == "Nothing to change on 400 hosts."
    assert any("Step 0, Step 1, Step 2 and 6 more" in line for line in lines)


def test_plan_names_each_change_and_who_cannot_be_deployed() -> None:
    outcome = outcome_of(
        {"event": "would", "host": "gpu1", "operation": MODELS},
        {"event": "would restart", "host": "gpu1", "unit": "ollama.service", "verb": "restart",
         "because": ["/etc/x"], "cuts_off": "3 requests in flight through edge"},
        {"event": "would restart", "host": "gpu1", "unit": "a.timer", "verb": "stop",
         "because": [], "cuts_off": ""},
        failed("gpu2", "gpu2: no such disk"),
        {"event": "planned"},
        names=("gpu1", "gpu2", "edge"),
    )  # fmt: skip
    assert plain(show.plan(outcome)) == [
        "gpu1  would change 1:",
        f"    {MODELS}",
        "    would restart ollama.service: cuts off 3 requests in flight through edge",
        "    would stop a.timer",
        "gpu2  cannot be deployed: no such disk",
        "Nothing would change on edge.",
    ]


def told(*events: dict[str, object], is_terminal: bool = False) -> str:
    """What is printed of a run whose events come five seconds apart."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=100, highlight=False)
    outcome = Outcome(["gpu1", "edge"])
    with show.Display(console, outcome) as display:
        for number, event in enumerate(events):
            host = outcome.take(event, 5.0 * number)
            if host:
                display.show(event, host, 5.0 * number)
    return file.getvalue()


def says(text: str, level: int = 20) -> dict[str, object]:
    return {"event": "says", "host": "gpu1", "text": text, "level": level}


STARTS = {"event": "starts", "host": "gpu1", "operation": MODELS}


def test_without_a_terminal_long_work_says_how_far_it_is_now_and_then() -> None:
    percent = [says(f"{number} % of 13.8 GB") for number in range(9)]
    assert told(STARTS, *percent, done("gpu1", MODELS)).splitlines() == [
        f"gpu1  at work  {MODELS}: 1 % of 13.8 GB",
        f"gpu1  at work  {MODELS}: 3 % of 13.8 GB",
        f"gpu1  at work  {MODELS}: 5 % of 13.8 GB",
        f"gpu1  at work  {MODELS}: 7 % of 13.8 GB",
        f"gpu1  changed  {MODELS}",
    ]


def test_what_does_not_change_is_quiet() -> None:
    assert told(STARTS, done("gpu1", MODELS, changed=False)) == ""


def test_remarks_and_failures_are_shown_as_they_come() -> None:
    lines = told(
        says("this checkout is older", 30),
        {"event": "lost", "host": "edge", "reason": "edge: no route"},
        STARTS,
        {"event": "error", "host": "gpu1", "operation": MODELS},
    ).splitlines()
    assert lines == [
        "gpu1  note  this checkout is older",
        "edge  failed  no route",
        f"gpu1  failed  {MODELS}",
    ]


def test_a_terminal_shows_who_is_at_what() -> None:
    text = told(STARTS, says("43 % of 13.8 GB"), is_terminal=True)
    assert MODELS in text
    assert "43 % of 13.8 GB" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4 s"), (12.3, "12 s"), (59.4, "59 s"), (185.2, "3m05s")]
)
def test_duration(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


def test_a_reason_is_never_empty() -> None:
    host = HostOutcome("gpu1")
    host.take({"event": "error", "operation": MODELS})
    host.take({"event": "failed", "reason": ""})
    assert host.failed == MODELS
