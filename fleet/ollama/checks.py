"""What `fleet doctor` looks at before Ollama is installed."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra.facts.server import Arch

from fleet.declare.fleet import Fleet, FleetHost
from fleet.declare.preflight import (
    Ask,
    Line,
    Verdict,
    fail,
    judged,
    ok,
    reached,
)
from fleet.driver.facts import DrivenGpus, GpuHardwareFact
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.facts.reach import Reachable, SmallFile
from fleet.kit.proxy import proxy_environment
from fleet.ollama.instances import refuse_missing_gpus
from fleet.ollama.preflight import UNIT_PATTERNS, refuse_foreign_installation
from fleet.ollama.release import release_source
from fleet.ollama.servers import instances_of
from fleet.ollama.settings import Ollama

_SUMS = "sha256sum.txt"  # beside each release, as its publisher has it


def checks(me: FleetHost, _: Fleet, ask: Ask) -> Iterator[Line]:
    """Another Ollama, GPUs that instances name, and the release with the pinned checksum."""
    yield judged("other Ollama", lambda: _foreign(me, ask))
    if me[Ollama].instances:
        yield judged("instances", lambda: _instances(me, ask))
    if any(item.runtime == "systemd" for item in instances_of(me)):
        yield _release(me, ask)


def _foreign(me: FleetHost, ask: Ask) -> str:
    refuse_foreign_installation(me, ask(ForeignFiles, patterns=UNIT_PATTERNS))
    return "none"


def _instances(me: FleetHost, ask: Ask) -> str:
    instances = instances_of(me)
    refuse_missing_gpus(instances, ask(DrivenGpus), ask(GpuHardwareFact))
    return f"the GPUs of all {len(instances)} are there, as far as the host can tell"


def _release(me: FleetHost, ask: Ask) -> Line:
    what = f"Ollama {me[Ollama].version}"
    source = judged(what, lambda: " ".join(release_source(me, ask(Arch))))
    if source.verdict is not Verdict.OK:
        return source
    url, pinned = source.text.split()
    environment = proxy_environment(me[Ollama].https_proxy, me[Ollama].no_proxy)
    there = reached(ask, what, url, environment)
    if (
        there.verdict is not Verdict.OK
        or not ask(Reachable, url=url, environment=environment).by_http
    ):
        return there
    sums = judged(what, lambda: ask(SmallFile, url=_beside(url), environment=environment))
    return _compared(there, url, pinned, _stated(url, sums.text))


def _compared(there: Line, url: str, pinned: str, stated: str | None) -> Line:
    """The tarball is large: its checksum is compared with what the publisher states beside it."""
    if stated is None:
        text = f"{there.text}; no {_SUMS} beside it, so the deploy alone can compare"
        return ok(there.what, text)
    if stated != pinned:
        return fail(
            there.what,
            f"{url}: {_SUMS} beside it states {stated}, and pinned is {pinned}; correct "
            "ollama_sha256, or the mirror",
        )
    return ok(there.what, f"{there.text}, and {_SUMS} beside it states the pinned checksum")


def _beside(url: str) -> str:
    return f"{url.rpartition('/')[0]}/{_SUMS}"


def _stated(url: str, sums: str) -> str | None:
    """The checksum of the file of `url` in a list like sha256sum's; None without one."""
    name = url.rpartition("/")[2]
    for line in sums.splitlines():
        checksum, _, path = line.partition(" ")
        if path.strip().lstrip("*").removeprefix("./") == name:
            return checksum
    return None
