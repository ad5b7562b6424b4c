"""The checks of `fleet doctor` judge a host as the deploy would, and ask nothing but facts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pyinfra.facts.server import Arch, LinuxDistribution

from fleet.declare.fleet import Fleet
from fleet.declare.preflight import Ask, Line, UnansweredError, Verdict, judged
from fleet.driver.facts import Gpu, GpuHardware, GpuHardwareFact
from fleet.firewall.facts import OtherFirewalls
from fleet.kit.errors import FleetError
from fleet.kit.facts.files import FileState, FileStates
from fleet.kit.facts.foreign import ForeignFiles
from fleet.kit.facts.listeners import Listener, Listeners
from fleet.kit.facts.reach import FreeRoom, Reach, Reachable, SmallFile
from fleet.ollama.release import release_source
from fleet.platform.facts import AptArchives, Archives, Clock, HostAddresses, HostClock
from tests.fleets import EDGE, FLEETS, GPU, Hosts, fleet_of
from tests.plan.simulation import Answers, bare, plan

_H100 = GpuHardware((Gpu("0000:17:00.0", 0x2330),))
_ROOM = 900_000_000_000


def _answers(changed: Mapping[type, Callable[..., Any]] = {}) -> Answers:
    return {
        **bare(),
        HostClock: lambda: Clock(time.time(), True),
        AptArchives: lambda: Archives({"deb.debian.org": True}),
        Reachable: lambda url, environment: Reach(200 if "/v2/" not in url else 401),
        SmallFile: lambda url, environment: "",
        FreeRoom: lambda paths: dict.fromkeys(paths, _ROOM),
        **changed,
    }


def _ask(answers: Answers) -> Ask:
    def ask(fact: type, **arguments: Any) -> Any:
        return answers[fact](**arguments)

    return ask


def _lines(fleet: Fleet, answers: Answers) -> dict[str, list[Line]]:
    return {
        me.name: [
            line
            for item in fleet.capabilities_of(me)
            for line in item.preflight(me, fleet, _ask(answers))
        ]
        for me in fleet
    }


def _bad(hosts: Hosts, changed: Mapping[type, Callable[..., Any]] = {}) -> list[tuple[str, str]]:
    """Check and text of whatever fails."""
    found = _lines(fleet_of(hosts), _answers(changed))
    return [
        (line.what, line.text)
        for lines in found.values()
        for line in lines
        if line.verdict is Verdict.FAIL
    ]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each name has an address."""
    found = [(0, 0, 0, "", ("10.0.0.2", 0))]
    monkeypatch.setattr("fleet.gateway.checks.socket.getaddrinfo", lambda *_: found)


@pytest.mark.parametrize("name", FLEETS)
def test_nothing_fails_on_a_bare_host_that_has_all(name: str) -> None:
    # Instances may name theirs.
    two = GpuHardware((*_H100.gpus, Gpu("0000:18:00.0", 0x2330)))
    hosts, answers = FLEETS[name], {}
    if name == "instances":
        groups, settings = hosts["gpu1"]
        hosts = {**hosts, "gpu1": (groups, {**settings, "gpu_count": 2})}
        answers = {GpuHardwareFact: lambda: two}
    assert _bad(hosts, answers) == []


@pytest.mark.parametrize("name", FLEETS)
def test_whoever_answers_nothing_fails_nothing(name: str) -> None:
    """... is not checked, line for line, and no exception."""
    fleet = fleet_of(FLEETS[name])

    def ask(*_: Any, **__: Any) -> Any:
        raise UnansweredError("the connection was lost")

    for me in fleet:
        for item in fleet.capabilities_of(me):
            for line in item.preflight(me, fleet, ask):
                assert line.verdict is not Verdict.FAIL, line


# What is wrong with a host, and the check that has to say it.
WRONG: dict[str, tuple[str, dict[type, Callable[..., Any]]]] = {
    "system": (
        "system",
        {LinuxDistribution: lambda: {"release_meta": {"ID": "fedora", "VERSION_ID": "41"}}},
    ),
    "address": ("private address", {HostAddresses: lambda: ["192.0.2.1"]}),
    "port": (
        "ports",
        {Listeners: lambda: (Listener(None, 11434, "7", "nc", "other.service"),)},
    ),
    "ufw": ("other firewalls", {OtherFirewalls: lambda: ["ufw"]}),
    "another Ollama": (
        "other Ollama",
        {ForeignFiles: lambda patterns: ["/etc/systemd/system/ollama.service"]},
    ),
    "architecture": ("Ollama 0.32.7", {Arch: lambda: "ppc64le"}),
    "lost GPU": ("number of GPUs", {GpuHardwareFact: lambda: _H100}),
    "old GPU": (
        "driver",
        {GpuHardwareFact: lambda: GpuHardware((Gpu("0000:17:00.0", 0x0FFF),))},
    ),
    "Secure Boot": (
        "driver",
        {GpuHardwareFact: lambda: GpuHardware(_H100.gpus, secure_boot=True)},
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_the_deploy_refuses_fails_in_the_same_words(name: str) -> None:
    what, changed = WRONG[name]
    hosts = {"gpu1": GPU, "edge": EDGE}
    text = next(text for found, text in _bad(hosts, changed) if found == what)
    planned = plan(hosts, {"gpu1": {**bare(), **changed}, "edge": bare()}, alone=True)
    refusal = " ".join(planned.failed.values()) or " ".join(planned.lines("gpu1"))
    assert _plain(text) in _plain(refusal)


def _plain(text: str) -> str:
    """Without what a simulated host is called besides, line ends, and a shell's quotes."""
    words = text.replace("@fake/", "").replace("gpu1: ", "").replace("'\"'\"'", "'")
    return " ".join(words.split())


@pytest.mark.parametrize(
    ("changed", "what", "said"),
    [
        ({HostClock: lambda: Clock(5.0, True)}, "clock", "set the clock that is wrong"),
        (
            {AptArchives: lambda: Archives({"deb.debian.org": True, "mirror.internal": False})},
            "DNS",
            "no address there: mirror.internal",
        ),
        (
            {Reachable: lambda url, environment: Reach(why="it refuses the connection")},
            "Ollama 0.32.7",
            "declare a mirror or proxy",
        ),
        ({Reachable: lambda url, environment: Reach(404)}, "Ollama 0.32.7", "it answers 404"),
        (
            {SmallFile: lambda url, environment: f"{'0' * 64}  ./ollama-linux-amd64.tar.zst"},
            "Ollama 0.32.7",
            "states 0000",
        ),
        ({FreeRoom: lambda paths: dict.fromkeys(paths, 5)}, "disk for models", "make room"),
    ],
)
def test_what_a_deploy_would_only_run_into(
    changed: dict[type, Callable[..., Any]], what: str, said: str
) -> None:
    assert [found for found, text in _bad({"gpu1": GPU}, changed) if said in text] == [what]


def test_published_checksum_that_is_the_pinned_one() -> None:
    fleet = fleet_of({"gpu1": GPU})
    pinned = release_source(fleet["gpu1"], "x86_64")[1]
    sums = f"{'1' * 64}  ./other.tgz\n{pinned}  ./ollama-linux-amd64.tar.zst\n"
    lines = _lines(fleet, _answers({SmallFile: lambda url, environment: sums}))["gpu1"]
    [line] = [line for line in lines if line.what.startswith("Ollama ")]
    assert line.verdict is Verdict.OK
    assert line.text.endswith("states the pinned checksum")


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({HostClock: lambda: Clock(time.time(), False)}, "time service"),
        ({FreeRoom: lambda paths: dict.fromkeys(paths, 5)}, "disk for images"),
    ],
)
def test_warning(changed: dict[type, Callable[..., Any]], what: str) -> None:
    lines = _lines(fleet_of(FLEETS["everything on one"]), _answers(changed))["all"]
    assert what in [line.what for line in lines if line.verdict is Verdict.WARN]


def test_looking_makes_no_secret() -> None:
    fleet = fleet_of(FLEETS["everything on one"])
    before = sorted(path.name for path in fleet.secrets.root.glob("*"))
    _lines(fleet, _answers())
    assert sorted(path.name for path in fleet.secrets.root.glob("*")) == before


def test_store_that_was_left_behind() -> None:
    """The host has keys, and this machine has none of them."""
    there = FileState("ab" * 32, "600", "root", "root")
    bad = _bad(FLEETS["two hosts"], {FileStates: lambda paths: dict.fromkeys(paths, there)})
    assert [text for what, text in bad if what == "secrets"], bad


def test_refusal_is_a_failure_and_silence_is_none() -> None:
    def refuse() -> str:
        raise FleetError("gpu1: no")

    def silent() -> str:
        raise UnansweredError("gone")

    assert judged("x", refuse) == Line(Verdict.FAIL, "x", "gpu1: no")
    assert judged("x", silent) == Line(Verdict.NOT_CHECKED, "x", "gone")
    assert judged("x", lambda: "all") == Line(Verdict.OK, "x", "all")
