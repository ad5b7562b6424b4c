"""`find-traces` tells what is ours from what only looks like it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fleet.kit.facts.foreign import MARK
from fleet.kit.facts.traces import Traces, asked
from fleet.kit.footprint import Kind, Part
from fleet.kit.render import host_program

_HEADER = f"# {MARK}: change the settings instead.\n"


def find(*parts: Part, path: str = "/usr/bin:/bin") -> dict[int, list[str]]:
    """What the host's own shell finds."""
    command = ["sh", "-c", host_program("kit", "find-traces"), "find-traces", MARK, *asked(parts)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, env={"PATH": path})
    assert result.stderr == ""
    return Traces().process(result.stdout.splitlines())


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A file and a directory of ours by what is in them, and the same of somebody else."""
    (tmp_path / "ours.service").write_text(_HEADER)
    (tmp_path / "theirs.service").write_text("[Unit]\n")
    for name in ("1.0", "theirs"):
        (tmp_path / "opt" / name).mkdir(parents=True)
    (tmp_path / "opt" / "1.0" / ".sha256").touch()
    (tmp_path / "opt" / "current").symlink_to("1.0")
    (tmp_path / "llm-fleet").mkdir()
    (tmp_path / "llm-fleet" / "with space").touch()
    return tmp_path


def test_the_mark_in_a_file_counts(tree: Path) -> None:
    assert find(Part("file", f"{tree}/*.service", "marked")) == {0: [f"{tree}/ours.service"]}


def test_a_mark_in_a_directory_counts(tree: Path) -> None:
    found = find(
        Part("tree", f"{tree}/opt/*", ".sha256"), Part("file", f"{tree}/opt/current", ".sha256")
    )
    assert found == {0: [f"{tree}/opt/1.0"], 1: [f"{tree}/opt/current"]}


@pytest.mark.parametrize(
    ("sign", "ours"),
    [
        ("", True),
        ("{}/llm-fleet", True),
        ("{}/llm-fleet/*", True),
        ("{}/ours.service", True),
        ("{}/theirs.service", False),
        ("{}/absent-llm-fleet", False),
        ("absent", False),
        ("1.0", True),
    ],
)
def test_signs(tree: Path, sign: str, ours: bool) -> None:
    # The temporary directory is named by the test, and by nobody else.
    assert "llm-fleet" not in str(tree)
    found = find(Part("tree", f"{tree}/opt", sign.format(tree)))
    assert found == ({0: [f"{tree}/opt"]} if ours else {})


@pytest.mark.parametrize(
    ("kind", "name", "is_there"),
    [
        ("file", "ours.service", True),
        ("record", "ours.service", True),
        ("tree", "ours.service", False),
        ("file", "opt", False),
        ("tree", "opt", True),
        ("tree", "opt/current", False),
        ("file", "llm-fleet/with space", True),
        ("folder", "opt", False),
        ("folder", "opt/theirs", True),
        ("folder", "opt/current", False),
    ],
)
def test_kinds(tree: Path, kind: Kind, name: str, is_there: bool) -> None:
    assert find(Part(kind, f"{tree}/{name}")) == ({0: [f"{tree}/{name}"]} if is_there else {})


def test_units_of_a_pattern_by_their_state(tmp_path: Path) -> None:
    """One that systemd does not know is not there, one that failed or starts at boot is."""
    stub = tmp_path / "systemctl"
    stub.write_text(
        "#!/bin/sh\n"
        'case "$1 $7" in\n'
        '"list-units "*) printf "llm-fleet-a.service loaded\\nllm-fleet-b.service x\\n" ;;\n'
        "esac\n"
        'case "$*" in\n'
        "*llm-fleet-a.service) printf 'ActiveState=failed\\nUnitFileState=\\n' ;;\n"
        "*llm-fleet-b.service) printf 'ActiveState=inactive\\nUnitFileState=\\n' ;;\n"
        "*llm-fleet-c.service) printf 'ActiveState=inactive\\nUnitFileState=enabled\\n' ;;\n"
        "esac\n"
    )
    stub.chmod(0o755)
    parts = [Part("unit", "llm-fleet-*"), Part("unit", "llm-fleet-c.service")]
    assert find(*parts, path=f"{tmp_path}:/usr/bin:/bin") == {
        0: ["llm-fleet-a.service"],
        1: ["llm-fleet-c.service"],
    }


def test_a_unit_of_somebody_else_is_not_found(tmp_path: Path) -> None:
    stub = tmp_path / "systemctl"
    stub.write_text("#!/bin/sh\nprintf 'ActiveState=active\\nUnitFileState=enabled\\n'\n")
    stub.chmod(0o755)
    parts = [
        Part("unit", "ollama.service", "marked"),
        Part("unit", "nginx.service", "/etc/systemd/system/nginx.service.d/llm-fleet.conf"),
    ]
    assert find(*parts, path=f"{tmp_path}:/usr/bin:/bin") == {}


def test_a_user_is_known_by_its_home() -> None:
    assert find(Part("user", "root", "/root"), Part("user", "root", "/var/lib/ollama")) == {
        0: ["root"]
    }


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        find(Part("flag", "x"))  # type: ignore[arg-type]
