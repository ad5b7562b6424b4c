"""Logs of a host are found by what it runs, and read by commands that end."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from fleet import cli
from fleet.capabilities import CAPABILITIES
from fleet.declare.fleet import Fleet
from fleet.declare.logs import Logs
from fleet.kit.errors import FleetError
from fleet.operate.logs import name_of, places_of, reading


def test_each_capability_is_called_as_its_page() -> None:
    pages = {path.stem for path in Path("docs/operating").glob("*.md")}
    assert {name_of(item) for item in CAPABILITIES if item.logs != Logs()} <= pages


def test_of_one_capability_or_of_all(default: Fleet) -> None:
    gpu, edge = default["gpu1"], default["edge"]
    (gateway,) = places_of(default, edge, "gateway")
    assert gateway.units[0] == "nginx.service"
    assert "/var/log/llm-fleet/gateway.log" in gateway.files
    assert gateway in places_of(default, edge, None)
    assert gateway not in places_of(default, gpu, None)
    units = {unit for place in places_of(default, gpu, None) for unit in place.units}
    assert {"ollama.service", "ollama-models.service"} <= units


def test_what_a_host_does_not_run_is_refused(default: Fleet) -> None:
    with pytest.raises(FleetError, match=r"gpu1: gateway keeps no log there; .*ollama.* do"):
        places_of(default, default["gpu1"], "gateway")


@pytest.mark.parametrize("name", ["box9", "gpu"])
def test_one_host_is_named(inventory: Path, name: str) -> None:
    inventory.write_text('gpu = ["box1", "box2"]\n')
    result = CliRunner().invoke(cli.main, ["logs", str(inventory), name])
    assert result.exit_code == 2
    assert name in result.stderr


def test_a_duration_is_one(inventory: Path) -> None:
    inventory.write_text('gpu = ["box1"]\n')
    result = CliRunner().invoke(cli.main, ["logs", str(inventory), "box1", "--since", "soon"])
    assert result.exit_code == 2
    assert "Invalid value for --since: " in result.stderr


def run(places: list[Logs], follow: bool) -> subprocess.Popen[str]:
    line = reading(places, 2, None, follow).get_raw_value()
    return subprocess.Popen(
        ["sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_the_last_lines_of_files(tmp_path: Path) -> None:
    """... and one that is not there is no failure: nothing was written yet."""
    log, none = tmp_path / "it's.log", tmp_path / "none.log"
    log.write_text("".join(f"{number}\n" for number in range(9)))
    process = run([Logs(files=(str(none), str(log)))], False)
    assert process.communicate(timeout=20)[0] == "7\n8\n"
    assert process.returncode == 0


def test_what_is_followed_ends_with_its_reader(tmp_path: Path) -> None:
    log = tmp_path / "it's.log"
    log.write_text("first\n")
    process = run([Logs(files=(str(log),))], True)
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "first\n"
    with log.open("a") as file:
        file.write("second\n")
    assert process.stdout.readline() == "second\n"
    process.stdin.close()
    began = time.monotonic()
    process.wait(20)
    process.stdout.close()
    assert time.monotonic() - began < 10
    assert not any(
        str(log).encode() in path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.exists()
    )  # fmt: skip


@pytest.mark.parametrize("follow", [False, True])
def test_journals_and_containers_are_asked_for_the_same(follow: bool) -> None:
    places = [Logs(units=("ollama.service", "ollama@*.service")), Logs(project="dify")]
    line = reading(places, 7, 90, follow).get_raw_value()
    for part in (
        "-n 7 --since=-90s",
        "--unit ollama.service --unit",
        "docker compose -p dify logs --no-color --timestamps --tail 7 --since=90s",
    ):
        assert part in line
    assert line.count("--follow") == 2 * follow
