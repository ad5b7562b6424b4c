"""What pyinfra's command line would take for success though nothing was done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pyinfra.api.inventory import Inventory

from fleet.declare.fleet import PRODUCT_ROOT
from fleet.kit.command_line import misunderstood, unmatched

PYINFRA = Path(sys.executable).parent / "pyinfra"
# At which nobody answers.
HOST = {"ssh_hostname": "127.0.0.1", "ssh_port": 9, "private_address": "10.0.0.1"}


def run(*words: Path | str) -> tuple[int, str]:
    done = subprocess.run(
        [PYINFRA, *words], cwd=PRODUCT_ROOT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("limit", "exclude", "said"),
    [
        pytest.param(["gpu9"], [], "--limit gpu9: no such host or group; there are", id="nobody"),
        pytest.param(["gateway"], [], "--limit gateway: no such host", id="an empty group"),
        pytest.param(["gpu1", "x"], [], "--limit x: no such host", id="one of two"),
        pytest.param([], ["gpu9"], "--exclude gpu9: no such host", id="nobody excluded"),
        pytest.param([], ["gpu"], "no host is left by --limit and --exclude", id="all excluded"),
        pytest.param(["gpu1"], ["gpu?"], "no host is left", id="the limit excluded"),
    ],
)
def test_hosts_that_nobody_has_are_refused(limit: list[str], exclude: list[str], said: str) -> None:
    [line] = unmatched({"limit": limit, "exclude": exclude}, two_hosts())
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("limit", "exclude"),
    [([], []), (["gpu1"], []), (["gpu"], ["gpu2"]), (["g*"], []), ([], ["gpu1"])],
)
def test_hosts_that_are_there_are_taken(limit: list[str], exclude: list[str]) -> None:
    assert list(unmatched({"limit": limit, "exclude": exclude}, two_hosts())) == []


@pytest.mark.parametrize("text", ["gpu1,gpu2", "gpu1 gpu2", "gpu1, gpu2"])
def test_several_hosts_in_one_option_are_told_how_to_be_written(text: str) -> None:
    [line] = misunderstood({"limit": (text,), "inventory": "inventory/prod.py"})
    assert line.endswith("write --limit gpu1 --limit gpu2")


@pytest.mark.parametrize(
    ("inventory", "said"),
    [
        ("inventory/prdo.py", "inventory/prdo.py: no such inventory file"),
        ("prdo.py", "prdo.py: no such inventory file"),
        ("inventory", "inventory: a directory; name the inventory file in it"),
        ("inventory/prod.py,inventory/lab.py", "inventory/prod.py,inventory/lab.py: no such"),
    ],
)
def test_an_inventory_file_that_is_not_there_is_refused(inventory: str, said: str) -> None:
    [line] = misunderstood({"inventory": inventory})
    assert line.startswith(said)


@pytest.mark.parametrize("inventory", ["inventory/prod.py", "@ssh/gpu1", "gpu1,gpu2", "make.hosts"])
def test_other_inventories_are_pyinfras_matter(inventory: str) -> None:
    assert list(misunderstood({"inventory": inventory})) == []


def test_pyinfra_ends_with_a_failure_when_nothing_was_done(tmp_path: Path) -> None:
    path = tmp_path / "inventory.py"
    path.write_text(f'gpu = [("gpu1", {HOST!r})]\n')
    for words, said in {
        (path, "deploy.py", "-y", "--limit", "gpu9"): "--limit gpu9: no such host or group",
        ("no-such-host.invalid", "deploy.py", "--dry"): "no such inventory file, and no host",
        (path, "deploy.py", "-y"): "--> Failed hosts: gpu1: ",
    }.items():
        status, output = run(*words)
        assert said in output
        assert status == 1


def two_hosts() -> Inventory:
    return Inventory((["gpu1", "gpu2"], {}), gpu=(["gpu1", "gpu2"], {}), gateway=([], {}))
