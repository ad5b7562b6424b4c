"""A run of pyinfra, told from outside: what it plans, does, and fails by."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.kit.errors import FleetError
from fleet.operate import child
from fleet.operate.outcome import HostOutcome, Outcome
from tests.unit.operate.project import HERE, NOWHERE, Project, project

__all__ = ["project"]

THREE_STEPS = """
@operation()
def nothing():
    yield from ()

@operation()
def restart():
    will_restart(Restart("ollama.service", "restart", ("/etc/x",)))
    tell_restart("ollama.service", "restart")
    yield "true"

server.shell(name="First", commands=["true"])
nothing(name="Second")
restart(name="Third")
tell_restarts(lambda name, item: f"3 requests to {name}")
"""
RESTART = {
    "unit": "ollama.service",
    "verb": "restart",
    "because": ["/etc/x"],
    "cuts_off": f"3 requests to {HERE}",
}


def of_here(outcome: Outcome) -> HostOutcome:
    return next(host for host in outcome if host.name == HERE)


def test_what_is_done_is_told(project: Project) -> None:
    run = project.run(THREE_STEPS, "--yes")
    host = of_here(run.carry_out(lambda _: pytest.fail("nobody is to be asked")))
    assert (host.changed, host.restarted) == (["First", "Third"], ["ollama.service"])
    assert (host.would, host.would_restart, host.failed) == ([], [], None)
    assert 0 < host.seconds < 60
    assert run.outcome.is_executed
    assert run.status == 0
    assert "Starting operation: First" in run.log.read_text()


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_plan_is_told_before_anything_is_done(project: Project, is_wanted: bool) -> None:
    made = project.root / "made"
    asked: list[bool] = []

    def judge(planned: Outcome) -> bool:
        host = of_here(planned)
        assert (host.would, host.would_restart) == (["First", "Third"], [RESTART])
        asked.append(made.exists())
        return is_wanted

    steps = THREE_STEPS.replace("true", f"touch {made}")
    outcome = project.run(steps).carry_out(judge)
    assert asked == [False]
    assert made.exists() == outcome.is_executed == is_wanted
    assert of_here(outcome).changed == (["First", "Third"] if is_wanted else [])


def test_a_dry_run_tells_its_plan(project: Project) -> None:
    outcome = project.run(THREE_STEPS, "--dry").carry_out(lambda _: False)
    assert of_here(outcome).would == ["First", "Third"]
    assert outcome.is_planned
    assert not outcome.is_executed


def test_a_failure_is_told_in_its_own_words(project: Project) -> None:
    steps = 'server.shell(name="Break", commands=["echo no such release >&2; exit 1"])'
    run = project.run(steps, "--yes")
    host = of_here(run.carry_out(lambda _: True))
    assert host.failed == "Break: no such release"
    assert run.status == 1


def test_a_host_without_a_connection_keeps_nobody_else_waiting(project: Project) -> None:
    project.names = (HERE, NOWHERE)
    outcome = project.run(THREE_STEPS).carry_out(lambda _: True)
    assert of_here(outcome).changed == ["First", "Third"]
    (failed,) = outcome.failed
    assert failed.name == NOWHERE
    assert "Could not connect" in (failed.failed or "")
    assert not failed.is_connected


@pytest.mark.parametrize("option", ["--yes", "--dry"])
def test_a_run_that_breaks_tells_no_plan_and_no_end(project: Project, option: str) -> None:
    """... and of nobody that nothing is to be changed: it was not planned to the end."""
    project.names = (HERE, NOWHERE)
    run = project.run(f"{THREE_STEPS}\nraise RuntimeError", option)
    outcome = run.carry_out(lambda _: True)
    assert {outcome.is_planned, outcome.is_executed, outcome.is_ended} == {False}
    assert [host.name for host in outcome.failed] == [NOWHERE]
    run.need_told()
    assert of_here(outcome).failed == f"not known: pyinfra ended early, see {run.log}"


@pytest.mark.parametrize("option", ["--yes", "--dry"])
def test_a_run_tells_that_it_came_to_its_end(project: Project, option: str) -> None:
    project.names = (HERE, NOWHERE)
    run = project.run(THREE_STEPS, option)
    assert run.carry_out(lambda _: True).is_ended
    run.need_told()
    assert of_here(run.outcome).failed is None


@pytest.mark.parametrize("tells", [True, False])
def test_a_pyinfra_that_is_not_ours_is_ended(
    project: Project, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    """... as one that waits for its own question to be answered."""
    monkeypatch.setattr(child, "_BEGINS", 60 if tells else 5)
    (project.root / "config.py").write_text("")
    run = project.run(THREE_STEPS if tells else 'server.shell(name="A", commands=["true"])')
    with pytest.raises(FleetError, match=r"ran no config\.py of llm-fleet and was ended; all that"):
        run.carry_out(lambda _: True)
    assert not _running("pyinfra", str(project.inventory))


def test_what_a_step_says_is_told(project: Project) -> None:
    steps = """
    @operation()
    def work():
        host.log("43 % of 13.8 GB")
        host.log("this is older", log_func=logger.warning)
        yield "true"

    work(name="Work")
    """
    host = of_here(project.run(steps, "--yes").carry_out(lambda _: True))
    assert host.said == host.remarks[0] == "this is older"
    assert len(host.remarks) == 1


def test_an_interrupt_ends_the_run_and_its_processes(
    project: Project, capfd: pytest.CaptureFixture[str]
) -> None:
    mark = f"60.{os.getpid()}"
    steps = f'server.shell(name="Wait", commands=["sleep {mark}"])'

    def interrupt() -> None:
        wait_for(lambda: _running(mark))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        project.run(steps, "--yes").carry_out(lambda _: True)
    assert time.monotonic() - began < 20
    assert f'{HERE}: cut off in "Wait"' in capfd.readouterr().err
    assert not _running("pyinfra", str(project.inventory))


def test_a_run_ends_with_whoever_started_it(project: Project) -> None:
    """... killed outright, in the middle of a step that says nothing."""
    mark = f"60.7{os.getpid()}"
    project.run(f'server.shell(name="Wait", commands=["sleep {mark}"])')
    program = (
        "from pathlib import Path; from fleet.operate.child import Child\n"
        f"c = Child(['{project.inventory}', 'deploy.py', '--yes', '--limit', '{HERE}'], "
        f"Path('{project.root}'), {{}}, Path('{project.root}/log'), print)\n"
        "for event in c.events(): pass"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL)
    wait_for(lambda: _running(mark))
    process.kill()
    process.wait()
    wait_for(lambda: not _running("pyinfra", str(project.inventory)))


def wait_for(holds: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def _running(*words: str) -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text().replace("\0", " "))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [line for line in lines if all(word in line for word in words)]


def test_logs_of_a_name_with_signs_are_its_own(project: Project) -> None:
    """... when patterns of file names have a meaning for them, too."""
    project.inventory = project.inventory.rename(project.root / "[a-z]*+.py")
    folder = project.root / "state" / "llm-fleet"
    project.run("", "--yes").log.unlink()
    for number in range(25):
        (folder / f"deploy-[a-z]*+-20260101T0000{number:02}-1.log").touch()
    other = folder / "deploy-bb-20260101T000000-1.log"
    other.touch()
    project.run("", "--yes")
    assert other.exists()
    assert len(list(folder.iterdir())) == 21


def test_logs_are_kept_for_whoever_runs_it_alone(project: Project) -> None:
    """... the newest twenty of them, and those of another inventory besides."""
    folder = project.root / "state" / "llm-fleet"
    project.run("", "--yes").log.unlink()
    others = [
        folder / f"deploy-{name}-20260101T000000-1.log" for name in ("site-eu", "sit", "my-site")
    ]
    for path in others:
        path.touch()
    for number in range(25):
        (folder / f"deploy-site-20260101T0000{number:02}-{number}.log").touch()
    log = project.run("", "--yes").log
    assert len(set(folder.iterdir()) - {*others}) == 20
    assert all(path.exists() for path in others)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert log.stat().st_mode & 0o777 == 0o600
