"""The lock of a run, as a host has it: held by a process, and freed by the kernel."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleet.kit.connection.lock import holder
from fleet.kit.paths import RUN_ID

PROGRAM = Path(__file__).parents[4] / "fleet" / "kit" / "on_host" / "hold-lock"
Holder = subprocess.Popen[str]
Hold = Callable[..., Holder]


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Try to hold the lock of a directory, as `who`."""
    with ExitStack() as stack:

        def start(who: str, silence: int = 60, words: Sequence[str] = ()) -> Holder:
            process = subprocess.Popen(
                ["bash", PROGRAM, tmp_path / "run", str(silence), who, "0", *words],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def said(process: Holder) -> str:
    assert process.stdout
    return process.stdout.readline().rstrip("\n")


def test_one_holds_it_and_is_named_to_the_others(hold: Hold) -> None:
    assert said(hold("alice")) == "held "
    other = hold("bob")
    assert said(other) == "taken alice"
    assert other.wait(5) == 0


@pytest.mark.parametrize("how", ["hangs up", "is killed"])
def test_it_is_freed_by_the_end_of_its_holder(hold: Hold, how: str) -> None:
    """... who is told afterwards whether somebody was here meanwhile."""
    first = hold("alice")
    assert said(first) == "held "
    if how == "hangs up":
        assert first.stdin
        first.stdin.close()
    else:
        first.kill()
    first.wait(5)
    assert said(hold("bob")) == "held alice"


def test_it_is_freed_by_silence(hold: Hold) -> None:
    first = hold("alice", silence=2)
    assert said(first) == "held "
    for _ in range(3):
        time.sleep(1)
        assert first.stdin
        first.stdin.write("\n")
        first.stdin.flush()
    assert said(hold("bob")) == "taken alice"
    first.wait(5)
    assert said(hold("bob")) == "held alice"


def test_stages_of_killed_runs_are_removed(hold: Hold, tmp_path: Path) -> None:
    """They hold secrets; but of a run that comes back, the stage is its own."""
    first = hold("alice")
    said(first)
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    stage = tmp_path / "run" / "stage-1"
    stage.mkdir()
    (stage / "keys.conf").touch()
    assert said(hold("bob")) == "taken alice"
    first.kill()
    first.wait(5)
    again = hold("alice")
    assert said(again) == "held alice"
    assert (stage / "keys.conf").exists()
    again.kill()
    again.wait(5)
    said(hold("bob"))
    assert not stage.exists()


def test_force_ends_the_connection_and_waits_for_what_it_had_started(
    hold: Hold, tmp_path: Path
) -> None:
    """So no two runs are at work on a host at once."""
    # As sshd: one process that waits for connections, and below it one for each of them.
    sshd, connection = tmp_path / "sshd", tmp_path / "sshd-session"
    for copy in (sshd, connection):
        shutil.copy("/bin/bash", copy)
    script = tmp_path / "script"
    script.write_text(
        # The program's text is in the command lines of what runs it, as it is on a host.
        f"program=$(cat {PROGRAM})\n"
        f'sh -c \'bash -c "$0" hold-lock {tmp_path}/run 60 alice 0; :\' "$program"'
        f" < <(exec sleep 20) > {tmp_path}/said &\n"
        f"bash -c 'sleep 4; touch {tmp_path}/ended' &\n"
        "wait\n"
    )
    listener = subprocess.Popen(
        ["sshd: /usr/sbin/sshd -D [listener]", "-c", f"{connection} {script}; :"],
        executable=sshd,
    )
    try:
        while not (tmp_path / "said").exists() or not (tmp_path / "said").read_text():
            time.sleep(0.05)
        other = hold("bob", words=["force"])
        assert said(other) == "held alice"
        assert (tmp_path / "ended").exists()
        assert listener.wait(5) == 0
    finally:
        listener.kill()
        listener.wait()


def test_holder_is_one_readable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "al\nice\u2028\u00e9")
    monkeypatch.setattr("socket.gethostname", lambda: "desk")
    assert re.fullmatch(
        rf"alice\?\?@desk, run {RUN_ID} since \d{{4}}-\d\d-\d\d \d\d:\d\d UTC", holder()
    )


def test_force_leaves_alone_whoever_has_the_same_connection(hold: Hold) -> None:
    """What holds it is ended with all that its connection has started, and never ourselves."""
    first = hold("alice")
    assert said(first) == "held "
    other = hold("bob", words=["force"])
    assert said(other) == "taken alice"
    assert first.poll() is None
