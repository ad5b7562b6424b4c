"""What each unit is kept from, by systemd's own measure; on hosts `make verify` measures again."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from fleet.capabilities import CAPABILITIES
from fleet.dify.files import stack_sandbox
from fleet.kit.files import ManagedFile
from fleet.kit.sandbox import MOST_EXPOSED, NOT_OURS, sandbox
from tests.fleets import ALTERNATIVE, BOX, fleet_of
from tests.unit.rendered import make_files

ROOT = Path(__file__).resolve().parents[2]
# As the distributions' own units begin, where a drop-in of ours goes on.
_BASES = {
    "nginx.service": "Type=forking\nPIDFile=/run/nginx.pid\n",
    "nftables.service": "Type=oneshot\nProtectSystem=full\nProtectHome=true\n",
    "prometheus-nginx-exporter.service": "User=prometheus\n",
    "prometheus-node-exporter.service": "User=prometheus\n",
}


def _files() -> Iterator[ManagedFile]:
    for hosts in ({"box": BOX}, dict(ALTERNATIVE)):
        for item in CAPABILITIES:
            yield from make_files(item, fleet_of(hosts))


def _unit(file: ManagedFile) -> str | None:
    """The name of the service that `file` is, or adds to."""
    path = PurePosixPath(file.path)
    if path.suffix == ".service":
        return path.name
    return path.parent.name.removesuffix(".d") if path.parent.suffix == ".d" and (
        ".service." in path.parent.name
    ) else None  # fmt: skip


def _exposure(folder: Path, name: str, text: str) -> tuple[float, str]:
    """What `systemd-analyze security` gives the unit, and why."""
    (folder / name).write_text(text)
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"./{name}"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    [found] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    return float(found), "\n".join(line for line in said.splitlines() if line.startswith("✗"))


def _text(file: ManagedFile, name: str) -> str:
    text = re.sub(r"(?m)^(Exec\w+=).+", r"\1/bin/true", file.text)
    if PurePosixPath(file.path).suffix == ".service":
        return text
    return f"[Service]\nExecStart=/bin/true\n{_BASES[name]}{text}"


def test_every_unit_is_closed_but_for_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.declare.load.project_of", lambda _: tmp_path / "project")
    seen, exposed = set(), {}
    for file in _files():
        name = _unit(file)
        if name is None or name in NOT_OURS or file.text in seen:
            continue
        seen.add(file.text)
        level, why = _exposure(tmp_path, name, _text(file, name))
        if level > MOST_EXPOSED:
            exposed[file.path] = f"{level}\n{why}"
    assert len(seen) > 15, "the search found no units"
    assert exposed == {}


@pytest.mark.parametrize("lines", [stack_sandbox(), sandbox()], ids=["Dify", "tightest"])
def test_transient_units(tmp_path: Path, lines: list[str]) -> None:
    text = "[Service]\nExecStart=/bin/true\n" + "\n".join(lines)
    level, why = _exposure(tmp_path, "job.service", text)
    assert level <= MOST_EXPOSED, why


def test_no_transient_unit_is_open_without_a_word() -> None:
    """A job of packages' scripts may be; whoever starts one says so with an empty list."""
    starts = [
        (path.relative_to(ROOT).as_posix(), node)
        for path in (ROOT / "fleet").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "start_job"
    ]
    assert len(starts) >= 4
    open_ones = [name for name, node in starts if ast.unparse(node.args[1]) == "[]"]
    assert open_ones == ["fleet/driver/operations.py"]


def test_an_exception_is_one(tmp_path: Path) -> None:
    """The measure sees what is left open."""
    text = "[Service]\nExecStart=/bin/true\n"
    assert _exposure(tmp_path, "open.service", text)[0] > 9
