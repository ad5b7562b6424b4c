"""What lies on hosts: one flat directory of programs and modules, standard library only."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from fleet.declare.fleet import PRODUCT_ROOT
from fleet.kit.host_programs import host_modules, imports_of, program_files
from fleet.kit.paths import LIB
from tests.host_programs import PYTHON_OPTIONS, laid_out

MODULES = sorted(PRODUCT_ROOT.glob("fleet/*/on_host/*.py"))
# Room and name of each that is started; all others are imported.
PROGRAMS = [
    (path.parts[-3], path.stem) for path in MODULES if '__name__ == "__main__"' in path.read_text()
]
NAMES = [path.stem for path in MODULES if path.stem != "__init__"]
PRODUCT = [
    path
    for folder in ("fleet", "tasks", "tests/compliance")
    for path in PRODUCT_ROOT.joinpath(folder).rglob("*.py")
    if "on_host" not in path.parts
]


def test_names_are_unique() -> None:
    """They lie side by side, whatever room they are of."""
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []


def test_no_name_hides_the_standard_library() -> None:
    """Their directory comes before it on the path."""
    assert set(NAMES) & sys.stdlib_module_names == set()


def test_every_module_is_a_programs() -> None:
    laid = {Path(file.path).stem for room, name in PROGRAMS for file in program_files(room, name)}
    assert laid == set(NAMES)


@pytest.mark.parametrize("path", [p for p in MODULES if p.stem in NAMES], ids=lambda p: p.stem)
def test_imports_are_of_the_standard_library_and_of_hosts(path: Path) -> None:
    known = {*sys.stdlib_module_names, *host_modules(path.parts[-3])}
    assert {name.partition(".")[0] for name in imports_of(path.read_text())} <= known


@pytest.mark.parametrize(("room", "name"), PROGRAMS)
def test_modules_come_before_what_imports_them(room: str, name: str) -> None:
    seen: set[str] = set()
    files = program_files(room, name)
    for file in files:
        own = set(imports_of(file.text)) & set(host_modules(room))
        assert own <= seen, file.path
        seen.add(Path(file.path).stem)
    assert (files[-1].path, files[-1].mode) == (f"{LIB}/{name}.py", "755")
    assert {file.mode for file in files[:-1]} <= {"644"}


def test_what_several_programs_need_is_installed_once() -> None:
    files = program_files("dify", "dify_client", "dify_stack")
    paths = [file.path for file in files]
    assert len(set(paths)) == len(paths)
    executable = {Path(file.path).stem for file in files if file.mode == "755"}
    assert executable == {"dify_client", "dify_stack"}


@pytest.mark.parametrize(("room", "name"), PROGRAMS)
def test_program_finds_all_that_it_imports(tmp_path: Path, room: str, name: str) -> None:
    """... in a directory that has nothing else."""
    laid_out(tmp_path, room, name)
    done = subprocess.run(
        [sys.executable, *PYTHON_OPTIONS, "-c", f"import {name}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_python_program_is_installed_without_its_modules() -> None:
    """`host_program` reads one file."""
    for path in PRODUCT:
        assert not re.search(r'host_program\("\w+", "[^"]*\.py"\)', path.read_text()), path


def test_product_code_imports_only_what_stands_alone() -> None:
    """By its place in the tree: what imports others is found on a host only."""
    imported = {
        name
        for path in PRODUCT
        for name in imports_of(path.read_text())
        if ".on_host." in name or name.endswith(".on_host")
    }
    assert imported, "nothing is looked at"
    for name in imported:
        path = PRODUCT_ROOT.joinpath(*name.split(".")).with_suffix(".py")
        own = set(imports_of(path.read_text())) & set(host_modules(path.parts[-3]))
        assert own == set(), name


def test_units_of_ours_read_other_programs_in_one_locale() -> None:
    """systemd gives every service the host's locale; what a deploy runs has its own prefix."""
    templates = sorted((PRODUCT_ROOT / "templates").rglob("*.service.j2"))
    ours = [path for path in templates if "ExecStart=/usr/bin/python3 " in path.read_text()]
    assert len(ours) >= 5
    silent = [path.name for path in ours if "\nEnvironment=LC_ALL=C\n" not in path.read_text()]
    assert silent == []
