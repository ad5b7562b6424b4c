"""`make check` has shellcheck read every shell program of the repository."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output(*command: str) -> list[str]:
    """What a command prints in the checkout, as lines."""
    # The make that runs these tests has flags of its own for its children.
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(200)


def test_every_program_that_names_a_shell_is_checked() -> None:
    files = output("git", "ls-files", "--cached", "--others", "--exclude-standard")
    programs = {
        name
        for name in files
        if (ROOT / name).is_file() and re.match(rb"#!.*sh\b", first_line(ROOT / name))
    }
    checked = [line.split()[1:] for line in output("make", "-n", "check") if "/shellcheck " in line]
    assert [set(names) for names in checked] == [programs]
    assert ".ci/run" in programs
