"""What a run makes of each host, gathered from the events that it tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from fleet.operate.child import Event

WARNING: Final = 30  # logging's level of what is said and is no error


@dataclass
class HostOutcome:
    """A host in a run; lists are in the order of the run, and have nothing twice.

    `changed` are operations that changed something, `would` those that a deploy would change;
    `restarted` are units, `would_restart` has for each the fields of a `Restart`, and whom it
    `cuts_off`, in words. `failed` is why, `seconds` how long the run
    took until the host was done. `at` is the operation that it is at, `said` its latest line, and
    `remarks` what was said to whoever deploys. Unless it `is_known`, nobody
    can say what came of it.
    """

    name: str
    changed: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    would: list[str] = field(default_factory=list)
    would_restart: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    failed: str | None = None
    seconds: float = 0
    at: str = ""
    said: str = ""
    is_connected: bool = False
    is_known: bool = True

    def planned(self) -> dict[str, Any]:
        """What a deploy would do to it, or why that is not known."""
        return {
            "would_change": self.would,
            "would_restart": self.would_restart,
            "not_known": self.failed,
        }

    def take(self, event: Event) -> None:
        """Take in an event of this host."""
        match event["event"]:
            case "starts":
                self.at, self.said = event["operation"], ""
            case "says":
                self.said = event["text"]
                if event["level"] == WARNING:
                    _add(self.remarks, event["text"])
            case "restarts" if event["verb"] == "restart":
                _add(self.restarted, event["unit"])
            case "would restart":
                keys = ("unit", "verb", "because", "cuts_off")
                self.would_restart.append({key: event[key] for key in keys})
            case "would":
                _add(self.would, event["operation"])
            case "connected":
                self.is_connected = True
            case _:
                self._end(event)

    def _end(self, event: Event) -> None:
        """Take in the end of an operation, or of all of them."""
        self.at = ""
        match event["event"]:
            case "done" if event["changed"]:
                _add(self.changed, event["operation"])
            case "error":
                self.failed = self.failed or event["operation"]
            case "lost" | "failed":
                reason = event["reason"].removeprefix(f"{self.name}: ")
                self.failed = reason or self.failed or "pyinfra tells no reason"

    def as_json(self) -> dict[str, Any]:
        """What a deploy did to it, or would; seconds rounded to tenths."""
        return {
            "changed": self.changed,
            "restarted": self.restarted,
            "would_change": self.would,
            "would_restart": self.would_restart,
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
        }


class Outcome:
    """All hosts of a run, in the inventory's order.

    `is_planned` is whether it has told a plan, `is_executed` whether it began to carry it out,
    `is_ended` whether it came to its end.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._hosts = {name: HostOutcome(name) for name in names}
        self.is_planned = self.is_executed = self.is_ended = False

    def __iter__(self) -> Iterator[HostOutcome]:
        """Iterate over the hosts."""
        return iter(self._hosts.values())

    def take(self, event: Event, now: float) -> HostOutcome | None:
        """Take in an event that came `now` seconds after the start; the host that it is about."""
        self.is_planned = self.is_planned or event["event"] == "planned"
        self.is_executed = self.is_executed or event["event"] == "starts"
        self.is_ended = self.is_ended or event["event"] == "ended"
        host = self._hosts.get(event.get("host", ""))
        if host is None:
            return None
        if event["event"] != "failed":
            host.seconds = now
        host.take(event)
        return host

    def lose(self, reason: str) -> None:
        """Of every host without a failure of its own, note that nobody knows, and why."""
        for host in self:
            if host.failed is None:
                host.failed, host.is_known = f"not known: {reason}", False

    @property
    def failed(self) -> list[HostOutcome]:
        """The hosts that failed, were refused, could not be reached, or are not known."""
        return [host for host in self if host.failed is not None]


def _add(items: list[str], item: str) -> None:
    if item not in items:
        items.append(item)
