"""Open WebUI on a host that runs: whether it answers."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra.api import QuoteString, StringCommand

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import Look, Told
from fleet.webui.declared import webui_endpoint
from fleet.webui.paths import WEBUI_UNIT


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """Whether its pages are there."""
    url = f"http://{webui_endpoint(me)}"
    health = QuoteString(f"{url}/health")
    yield Look(
        (
            StringCommand(
                "curl -fsS -o /dev/null --noproxy '*' --max-time 3", health, "&& echo yes"
            ),
        ),
        lambda found: _tell(url, *found),
    )


def _tell(url: str, answered: list[str]) -> Iterator[Told]:
    answers = answered == ["yes"]
    yield Told(
        "Open WebUI answers" if answers else "Open WebUI does not answer",
        {"answers": answers},
        "" if answers else f"Open WebUI does not answer at {url}: see `journalctl -u {WEBUI_UNIT}`",
    )
