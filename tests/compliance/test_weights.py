"""Weights are those of their locks, byte for byte, and nothing else."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator

import pytest

from fleet.kit.facts.files import FileStates
from fleet.kit.facts.units import UnitState
from fleet.kit.loaders import LoaderCheck, LoaderJob
from fleet.weights.declared import DeclaredWeights, declared
from fleet.weights.facts import WeightsState
from fleet.weights.files import loader_config, managed_files
from fleet.weights.paths import WEIGHTS_STATE, WEIGHTS_UNIT, WEIGHTS_USER

from .connection import Target
from .outcomes import Say

# Names that are links lead elsewhere, and are found as what is not in the lock.
_LIST = "find %s -mindepth 1 ! -type d -printf '%%y %%s %%P\\\\0'"
_PATIENCE = 120  # seconds that a loader is waited for


def test_files(each_host: Target) -> None:
    """The weights' folders have the files of their locks at their full size, and nothing else."""
    problems = []
    for name, item in _declared(each_host).items():
        found = each_host.testinfra.run(_LIST, item.folder)
        if found.rc != 0:
            problems.append(f"{name}: {item.folder} is not there")
            continue
        there = {
            path: (kind, int(size))
            for line in found.stdout.split("\0")
            if line
            for kind, size, path in [line.split(" ", 2)]
        }
        wanted = {file.path: ("f", file.size) for file in item.lock.files}
        problems += [
            f"{name}: {path} is {there.get(path, 'missing')}, in the lock {wanted.get(path, 'not')}"
            for path in sorted(there.keys() | wanted.keys())
            if there.get(path) != wanted.get(path)
        ]
    assert problems == []


def test_hashes(each_host: Target, request: pytest.FixtureRequest, measured: Say) -> None:
    """Every file of the weights hashes to its lock, or is unchanged since it did."""
    everything = request.config.getoption("--all-blobs")
    limit = request.config.getoption("--hash-up-to") * 1_000_000
    weights = _declared(each_host)
    wanted = {
        f"{item.folder}/{file.path}": file for item in weights.values() for file in item.lock.files
    }
    hashed = [path for path, file in wanted.items() if everything or file.size <= limit]
    sums = dict(_sums(each_host, hashed))
    problems = [
        f"{path} has the SHA-256 {sums.get(path)}, the lock says {wanted[path].sha256}"
        for path in hashed
        if sums.get(path) != wanted[path].sha256
    ]
    # The others are as the loader hashed them; it says so of all of them.
    check = _check(each_host)
    problems += [f"{name} {reason}" for name, reason in check.pending.items()]
    total = sum(file.size for file in wanted.values())
    measured(
        f"{sum(wanted[path].size for path in hashed) / 1e9:.1f} of {total / 1e9:.1f} GB hashed"
    )
    assert problems == []


def test_nobody_else_can_change_them(each_host: Target) -> None:
    """Everybody can read the weights, and their loader's user alone can change them."""
    folders = [item.folder for item in _declared(each_host).values()]
    words = " ".join(map(shlex.quote, folders))
    odd = each_host.run(
        f"find {words} \\( ! -user {WEIGHTS_USER} -o -perm /022 -o ! -perm -444 \\) -print | head"
    )
    assert odd == ""


def test_loader(each_host: Target) -> None:
    """The loader of weights is the declared one, starts at boot, and its last run ended well."""
    _declared(each_host)
    files = managed_files(each_host.declared, each_host.fleet)
    states = each_host.fact(FileStates, paths=[file.path for file in files])
    assert states == {file.path: file.state for file in files}
    unit = each_host.fact(UnitState, unit=WEIGHTS_UNIT, files=[])
    assert unit.is_enabled
    assert not unit.needs_daemon_reload
    run = each_host.fact(LoaderJob, unit=WEIGHTS_UNIT, path=WEIGHTS_STATE)
    assert not run.has_failed, each_host.journal(WEIGHTS_UNIT)


def test_nothing_is_left_to_do(each_host: Target) -> None:
    """The loader finds all weights as declared, and nothing of a fetch that was given up."""
    _declared(each_host)
    _wait_for_the_loader(each_host)
    check = _check(each_host)
    assert check.is_known, check.why
    assert check.pending == {}, f"run the deploy{each_host.journal(WEIGHTS_UNIT)}"


def _declared(target: Target) -> dict[str, DeclaredWeights]:
    found = declared(target.declared)
    if not found:
        pytest.skip("no weights are declared")
    return found


def _check(target: Target) -> LoaderCheck:
    config = json.dumps(loader_config(target.declared))
    check: LoaderCheck = target.fact(WeightsState, fresh=True, config=config)
    return check


def _sums(target: Target, paths: list[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        # One at a time: a repository may have more than a command line takes.
        said = target.testinfra.run("sha256sum < %s", path)
        if said.rc == 0:
            yield path, said.stdout.split()[0]


def _wait_for_the_loader(target: Target) -> None:
    """After a boot it may still be at work; reading on would blame what is under way."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        job = target.fact(LoaderJob, fresh=True, unit=WEIGHTS_UNIT, path=WEIGHTS_STATE)
        if not job.is_running:
            return
        time.sleep(1)
