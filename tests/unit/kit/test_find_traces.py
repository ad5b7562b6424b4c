"""`find-traces` tells what is ours from what only looks like it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.kit.facts.foreign import MARK
from fleet.kit.facts.traces import Traces, asked
from fleet.kit.footprint import Kind, Part
from fleet.kit.render import host_program

_HEADER = f"# {MARK}: change the settings instead.\n"


def find(*parts: Part, path: str = "/usr/bin:/bin") -> dict[int, list[str]]:
    """What the host's own shell finds."""
    program = host_program("kit", "find-traces")
    command = ["/bin/sh", "-c", program, "find-traces", MARK, *asked(parts)]
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


class TestDocker:
    """What only Docker can tell is not told for it: it could be started, and have all of it."""

    PROJECT = Part("project", "dify", "/{}/llm-fleet")
    VOLUMES = Part("volumes", "dify", "/{}/llm-fleet")
    VOLUME = Part("volume", "llm-fleet-webui")

    @pytest.fixture
    def host(self, tree: Path) -> Path:
        """A host with Docker's directory in `docker`; what is beside the shell is in `bin`."""
        (tree / "bin").mkdir()
        for name in ("cat", "grep", "head", "ls"):
            (tree / "bin" / name).symlink_to(f"/usr/bin/{name}")
        # Where daemon.json says that Docker's directory is.
        self.program(tree, "sed", f"echo {tree}/docker")
        return tree

    def program(self, host: Path, name: str, text: str) -> None:
        (host / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (host / "bin" / name).chmod(0o755)

    def find(self, host: Path, *kinds: Part) -> dict[int, list[str]]:
        parts = [replace(part, sign=part.sign.format(str(host)[1:])) for part in kinds]
        return find(*parts, path=f"{host}/bin")

    def refused(self, host: Path, part: Part) -> str:
        with pytest.raises(subprocess.CalledProcessError) as refused:
            self.find(host, part)
        assert refused.value.returncode == 2
        assert refused.value.stdout == ""
        return str(refused.value.stderr)

    @pytest.mark.parametrize("part", [PROJECT, VOLUMES, VOLUME])
    @pytest.mark.parametrize(("state", "answer"), [("exit 3", "exit 0"), ("exit 0", "exit 1")])
    def test_stopped(self, host: Path, part: Part, state: str, answer: str) -> None:
        (host / "docker" / "volumes" / "llm-fleet-webui").mkdir(parents=True)
        self.program(host, "systemctl", state)
        self.program(host, "docker", answer)
        assert self.refused(host, part) == "Docker does not run; start it, and run again\n"

    def test_stopped_and_nothing_of_ours(self, host: Path) -> None:
        (host / "llm-fleet" / "with space").unlink()
        (host / "llm-fleet").rmdir()
        self.program(host, "systemctl", "exit 3")
        self.program(host, "docker", "echo never asked")
        assert self.find(host, self.PROJECT, self.VOLUMES, self.VOLUME) == {}

    def test_running(self, host: Path) -> None:
        self.program(host, "systemctl", "exit 0")
        self.program(host, "docker", 'case $1 in ps) ;; *) echo "a-$1"; echo "b-$1" ;; esac')
        found = self.find(host, self.PROJECT, self.VOLUMES, self.VOLUME)
        assert found == {0: ["dify"], 1: ["a-volume", "b-volume"], 2: ["llm-fleet-webui"]}

    def test_running_without_anything(self, host: Path) -> None:
        self.program(host, "systemctl", "exit 0")
        self.program(host, "docker", "exit 0")
        assert self.find(host, self.PROJECT, self.VOLUMES, self.VOLUME) == {}

    def test_no_docker_that_could_be_started(self, host: Path) -> None:
        for name in ("llm-fleet-webui", "dify_data", "others"):
            (host / "docker" / "volumes" / name).mkdir(parents=True)
        self.program(host, "systemctl", "exit 4")
        found = self.find(host, self.PROJECT, self.VOLUMES, self.VOLUME)
        assert found == {1: ["dify_data"], 2: ["llm-fleet-webui"]}


def test_a_user_is_known_by_its_home() -> None:
    assert find(Part("user", "root", "/root"), Part("user", "root", "/var/lib/ollama")) == {
        0: ["root"]
    }


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        find(Part("flag", "x"))  # type: ignore[arg-type]
