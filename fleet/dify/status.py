"""Dify on a host that runs: whether it answers, its database behind it."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra.api import QuoteString, StringCommand

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.status import Look, Told
from fleet.dify.declared import dify_endpoint


def looks(me: FleetHost, _: Fleet) -> Iterator[Look]:
    """Whether it is ready: `/health` is 200 without a database, too."""
    url = f"http://{dify_endpoint(me)}"
    ready = QuoteString(f"{url}/console/api/setup")
    yield Look(
        (StringCommand("curl -fsS -o /dev/null --noproxy '*' --max-time 3", ready, "&& echo yes"),),
        lambda found: _tell(url, *found),
    )


def _tell(url: str, answered: list[str]) -> Iterator[Told]:
    answers = answered == ["yes"]
    yield Told(
        "Dify answers" if answers else "Dify does not answer",
        {"answers": answers},
        "" if answers else f"Dify does not answer at {url}: see `docker ps -a` there, and deploy",
    )
