"""vLLM's units, as they are rendered, as systemd takes them, and what they are kept from."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from fleet.kit.files import ManagedFile
from fleet.vllm.files import unit_file, watch_files
from fleet.vllm.paths import RESTART_PROGRAM, VLLM_PYTHON
from fleet.vllm.servers import VllmInstance
from fleet.vllm.settings import Vllm
from tests.unit.rendered import complaints, lay, lines
from tests.unit.vllm.servers import GPTOSS, UUIDS, instance

MOST_EXPOSED = 1.6


def command(unit: ManagedFile) -> list[str]:
    """The words of `ExecStart=`, as systemd.service(5) reads them."""
    joined = unit.text.replace("\\\n", " ")
    [line] = [line for line in joined.splitlines() if line.startswith("ExecStart=")]
    return [
        word.replace("%%", "%").replace("$$", "$")
        for word in shlex.split(line.removeprefix("ExecStart="))
    ]


def environment(unit: ManagedFile) -> dict[str, str]:
    found = [
        shlex.split(line.removeprefix("Environment=").replace("%%", "%"))
        for line in lines(unit.text)
        if line.startswith("Environment=")
    ]
    assert all(len(words) == 1 for words in found)
    return dict(word.split("=", 1) for [word] in found)


def exposure(folder: Path, unit: ManagedFile) -> tuple[float, str]:
    """What `systemd-analyze security` gives the unit, and why."""
    name = unit.staged_name
    (folder / name).write_text(re.sub(r"(?m)^(Exec\w+=).+", r"\1/bin/true", unit.text))
    said = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", f"./{name}"],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    [found] = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    return float(found), "\n".join(line for line in said.splitlines() if line.startswith("✗"))


def options(words: list[str]) -> dict[str, list[str]]:
    """Each flag of a command line to the words after it."""
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            found[name := word] = []
        elif found:
            found[name].append(word)
    return found


@pytest.mark.parametrize("runtime", ["docker", "venv"])
class TestCommand:
    def test_flags_are_the_declared_ones(self, runtime: str) -> None:
        words = command(unit_file(instance(runtime=runtime), UUIDS, GPTOSS))
        after = words[words.index("--model") :]
        assert options(after) == {
            "--model": ["/srv/weights/gpt-oss-120b"],
            "--served-model-name": ["gpt-oss:120b", "openai/gpt-oss-120b"],
            "--host": ["0.0.0.0" if runtime == "docker" else "127.0.0.1"],
            "--port": ["8000"],
            "--tensor-parallel-size": ["2"],
            "--gpu-memory-utilization": ["0.9"],
            "--max-num-seqs": ["128"],
            "--max-num-queued-reqs": ["384"],
            "--kv-cache-dtype": ["auto"],
            "--shutdown-timeout": ["30"],
            "--enable-force-include-usage": [],
            "--disable-fastapi-docs": [],
            "--max-model-len": ["131072"],
            "--enable-auto-tool-choice": [],
            "--tool-call-parser": ["openai"],
        }

    def test_queue_is_beside_what_is_answered(self, runtime: str) -> None:
        """vLLM's own number is of all requests that it has, on every copy of the model."""
        item = instance(
            runtime=runtime, max_sequences=10, max_queued=5, flags={"data-parallel-size": 2}
        )
        words = command(unit_file(item, UUIDS))
        assert words[words.index("--max-num-queued-reqs") + 1] == "25"

    def test_words_are_no_specifiers_and_no_variables(self, runtime: str) -> None:
        item = instance(runtime=runtime, flags={"otlp-traces-endpoint": "50%h of $HOME"})
        words = command(unit_file(item, UUIDS))
        assert words[words.index("--otlp-traces-endpoint") + 1] == "50%h of $HOME"

    def test_environment_fetches_nothing(self, runtime: str) -> None:
        found = environment(unit_file(instance(runtime=runtime, env={"X": "50%h"}), UUIDS))
        expected = {
            "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
            "VLLM_MAX_N_SEQUENCES": "8", "VLLM_CACHE_ROOT": "/var/cache/vllm/gpt-oss", "X": "50%h",
        }  # fmt: skip
        assert found.items() >= expected.items()
        visible = ",".join(UUIDS) if runtime == "venv" else None
        assert found.get("CUDA_VISIBLE_DEVICES") == visible

    def test_comes_back_whatever_it_ended_with(self, runtime: str) -> None:
        unit = lines(unit_file(instance(runtime=runtime), UUIDS).text)
        assert "Restart=always" in unit
        assert "StartLimitIntervalSec=0" in unit


class TestContainer:
    def test_has_its_gpus_and_no_more_rights(self) -> None:
        text = unit_file(instance(), UUIDS).text
        for uuid in UUIDS:
            assert f"--device nvidia.com/gpu={uuid} " in text
        words = "--read-only", "--cap-drop ALL", "no-new-privileges", "--shm-size 16g"
        assert [word for word in words if word not in text] == []
        assert "--ipc" not in text.partition("ExecStart=")[2]
        assert "--publish 127.0.0.1:8000:8000 " in text
        assert "target=/srv/weights/gpt-oss-120b,readonly " in text


def units() -> dict[str, ManagedFile]:
    loopback, private = instance(runtime="venv"), instance(runtime="venv", listen="private")
    on_cpu = instance(runtime="venv", gpus=[], tensor_parallel=None)
    return {
        "in a container": unit_file(instance(), UUIDS),
        "loopback": unit_file(loopback, UUIDS),
        "private": unit_file(private, UUIDS),
        "on the CPU": unit_file(on_cpu),
        "watch": watch_files(loopback)[0],
    }


@pytest.mark.parametrize("which", units())
def test_is_closed_but_for_what_it_needs(which: str, tmp_path: Path) -> None:
    level, why = exposure(tmp_path, units()[which])
    assert level <= MOST_EXPOSED, why


def test_an_exception_more_is_noticed(tmp_path: Path) -> None:
    unit = units()["private"]
    wider = ManagedFile(unit.path, unit.text.replace("ProtectSystem=strict", "ProtectSystem=no"))
    assert exposure(tmp_path, wider)[0] > exposure(tmp_path, unit)[0]


def with_programs(text: str) -> str:
    """systemd wants them there, which this machine has no reason to have."""
    return text.replace(f"={VLLM_PYTHON}", "=/bin/true").replace(RESTART_PROGRAM, "/bin/true")


def test_systemd_takes_them(tmp_path: Path) -> None:
    lay(tmp_path, ManagedFile("docker.service", "[Service]\nExecStart=/bin/true\n"))
    for place, unit in enumerate(units().values()):
        folder = tmp_path / str(place)
        folder.mkdir()
        item: VllmInstance = instance()
        for file in (unit, *watch_files(item)):
            lay(folder, ManagedFile(file.path, with_programs(file.text)))
        lay(folder, ManagedFile("docker.service", "[Service]\nExecStart=/bin/true\n"))
        assert complaints(folder, unit.staged_name) == ""
        assert complaints(folder, watch_files(item)[1].staged_name) == ""


def test_settings_are_those_of_the_host() -> None:
    assert isinstance(instance().settings, Vllm)
