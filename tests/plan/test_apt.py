"""Every way to apt is the patient one, and an operator reads for whom it waits."""

from __future__ import annotations

import logging
import re

import pytest
from pyinfra.api import StringCommand
from pyinfra.context import ctx_state

from fleet.driver.facts import Gpu, GpuHardware, GpuHardwareFact
from fleet.kit.facts.apt import WHEN_APT_IS_FREE, AptHolder, KeptFiles
from tests.fleets import BOX, Hosts
from tests.plan.simulation import Answers, bare, plan

HELD = "/var/lib/apt/lists/lock is held by apt-get (812)"
PATIENT = "sh -s -- 600 "
# What changes a host, or needs a lock of apt or dpkg; apt-cache and dpkg-query do neither.
APT = re.compile(r"\b(apt-get|apt-mark|dpkg -(?!-compare-versions))")
HOSTS: Hosts = {
    "box": (BOX[0], {**BOX[1], "docker_enabled": True}),
    "own": ("containers", {"docker_enabled": True, "docker_source": "distribution"}),
}


def answers() -> dict[str, Answers]:
    """Bare hosts, one of them with a GPU: everything that comes from apt is missing."""
    gpu = {GpuHardwareFact: lambda: GpuHardware((Gpu("0000:17:00.0", 0x2330),))}
    return {"box": bare() | gpu, "own": bare()}


def test_every_call_is_patient_and_never_asks() -> None:
    done = plan(HOSTS, answers())
    seen = set()
    for host in HOSTS:
        for command in done.commands(host):
            line = command.get_raw_value() if isinstance(command, StringCommand) else ""
            calls = [match.start() for match in APT.finditer(line)]
            assert [line[:at].endswith(PATIENT) for at in calls] == [True] * len(calls), line
            if calls:
                seen.add(line[calls[0] :].split(" ")[0])
                assert command.connector_arguments["_stdin"] == WHEN_APT_IS_FREE.splitlines()
    assert seen == {"apt-get", "apt-mark", "dpkg"}


def test_operator_reads_for_whom_it_waits(caplog: pytest.LogCaptureFixture) -> None:
    """When the step is executed; while it is planned nobody is asked."""

    def held() -> str:
        assert ctx_state.get().is_executing
        return HELD

    caplog.set_level(logging.INFO)
    plan(HOSTS, {name: asked | {AptHolder: held} for name, asked in answers().items()})
    assert f"waits up to 600 s: {HELD}" in caplog.text


def test_lists_are_fetched_once_a_run_and_again_for_each_new_source() -> None:
    planned = plan(HOSTS, answers())
    updates = {
        host: [line for line in planned.lines(host) if "apt-get update" in line] for host in HOSTS
    }
    assert len(updates["own"]) == 1
    # NVIDIA's repository, Docker's, and the toolkit's.
    assert len(updates["box"]) == 1 + 3


def test_operator_reads_which_files_stayed_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    """Those of earlier installations are not told again."""
    old, new = "/etc/mine.conf.dpkg-dist", "/etc/nftables.conf.dpkg-dist"
    asked = []

    def kept() -> frozenset[str]:
        assert ctx_state.get().is_executing
        asked.append(1)
        return frozenset([old] if len(asked) == 1 else [old, new])

    caplog.set_level(logging.WARNING)
    plan({"own": HOSTS["own"]}, {"own": bare() | {KeptFiles: kept}})
    told = [line for line in caplog.text.splitlines() if "stays as it was" in line]
    assert len(told) == 1
    assert told[0].endswith(
        "/etc/nftables.conf stays as it was before the package came; the package's own is " + new
    )
