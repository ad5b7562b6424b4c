"""What a host tells of its memory and models: the shell lines run for real, and their parsing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fleet.gates.facts import (
    FileHead,
    FileSize,
    GpuMemories,
    GpuMemory,
    ManifestAnswer,
    ModelManifest,
    PlacementState,
    SurroundingsState,
)
from fleet.gates.gguf import HEAD
from fleet.gates.placement import Loaded, Placement, Surroundings
from tests.unit.facts import ask

LAYER: dict[str, Any] = {"digest": f"sha256:{'ab' * 32}", "size": 5, "mediaType": "x"}
MANIFEST = {"schemaVersion": 2, "layers": [LAYER]}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and where its files are served, by a server that ignores ranges."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def manifest(path: Path | str, url: str | None = None, digest: str | None = None) -> ManifestAnswer:
    answer: ManifestAnswer = ask(
        ModelManifest(), path=str(path), url=url, digest=digest, environment={}
    )
    return answer


class TestModelManifest:
    def test_on_the_disk(self, tmp_path: Path) -> None:
        (tmp_path / "20b").write_text(json.dumps(MANIFEST))
        assert manifest(tmp_path / "20b", "http://127.0.0.1:1/") == ManifestAnswer(MANIFEST)

    def test_from_the_registry(self, registry: tuple[Path, str]) -> None:
        folder, url = registry
        (folder / "20b").write_text(json.dumps(MANIFEST, indent=1))
        assert manifest("/nowhere", f"{url}/20b") == ManifestAnswer(MANIFEST)

    def test_another_than_the_pinned_one_does_not_count(
        self, tmp_path: Path, registry: tuple[Path, str]
    ) -> None:
        folder, url = registry
        text = json.dumps(MANIFEST)
        (folder / "20b").write_text(text)
        (tmp_path / "20b").write_text('{"layers": []}')
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert manifest(tmp_path / "20b", f"{url}/20b", digest).manifest == MANIFEST
        (tmp_path / "20b").write_text(text)
        assert manifest(tmp_path / "20b", "http://127.0.0.1:1/", digest).manifest == MANIFEST

    def test_reasons(self, registry: tuple[Path, str]) -> None:
        folder, url = registry
        assert "404" in manifest("/nowhere", f"{url}/20b").reason
        assert "not there yet" in manifest("/nowhere").reason
        (folder / "page").write_text("<html>sign in</html>")
        assert "<html>sign in" in manifest("/nowhere", f"{url}/page").reason

    @pytest.mark.parametrize(
        "value",
        [
            [], None, 7, {}, {"layers": 7}, {"layers": [7]}, {"layers": [LAYER | {"digest": 7}]},
            {"layers": [LAYER | {"size": "5"}]}, {"layers": [LAYER | {"digest": "sha256:ab"}]},
        ],
        ids=str,
    )  # fmt: skip
    def test_json_of_another_form(self, tmp_path: Path, value: Any) -> None:
        (tmp_path / "20b").write_text(json.dumps(value))
        answer = manifest(tmp_path / "20b")
        assert answer.manifest is None
        assert answer.reason.startswith("no manifest: it")

    def test_what_is_deep_or_endless(self, tmp_path: Path, registry: tuple[Path, str]) -> None:
        folder, url = registry
        (folder / "deep").write_text("[" * 100_000)
        (folder / "long").write_text(" " * 30_000_000)
        assert manifest("/nowhere", f"{url}/deep").manifest is None
        assert manifest("/nowhere", f"{url}/long").reason.endswith("more than 4194304 bytes")
        os.mkfifo(tmp_path / "pipe")
        assert "not there yet" in manifest(tmp_path / "pipe").reason

    def test_nothing_of_a_file_is_shown(self, tmp_path: Path) -> None:
        """It may be a link: what a host's own service can name, root reads."""
        (tmp_path / "20b").write_text("root:$y$j9T$secret")
        assert "secret" not in manifest(tmp_path / "20b").reason

    def test_proxy_is_the_declared_one(self, registry: tuple[Path, str]) -> None:
        environment = {"HTTPS_PROXY": registry[1]}
        answer = ask(
            ModelManifest(), path="/nowhere", url="https://registry.example/v2/x", digest=None,
            environment=environment,
        )  # fmt: skip
        # It was asked, and does not know CONNECT.
        assert "501" in answer.reason


class TestFileHead:
    def test_beginning_only(self, tmp_path: Path, registry: tuple[Path, str]) -> None:
        content = bytes(range(256)) * 1_024
        folder, url = registry
        for path in (tmp_path / "blob", folder / "blob"):
            path.write_bytes(content)
        head = partial(ask, FileHead(), environment={})
        assert head(path=str(tmp_path / "blob"), url=None) == content[:HEAD]
        assert head(path=None, url=f"{url}/blob") == content[:HEAD]
        assert head(path="/nowhere", url=f"{url}/missing") == b""
        assert head(path="/nowhere", url=None) == b""


def test_file_size(tmp_path: Path, registry: tuple[Path, str]) -> None:
    folder, url = registry
    for path in (tmp_path / "it's", folder / "a"):
        path.write_bytes(b"12345")
    size = partial(ask, FileSize(), environment={})
    assert size(place=str(tmp_path / "it's")) == 5
    assert size(place=f"{url}/a") == 5
    assert size(place=f"{url}/missing") == 0
    assert size(place="/nowhere") == 0


@pytest.mark.parametrize("said", ["", "-1", "1e9", "٣", "9" * 5_000, "5 5", "<html>"])
def test_size_that_is_none(said: str) -> None:
    assert FileSize().process([said]) == 0


class TestGpuMemories:
    def test_process(self) -> None:
        # As an H100 and a GB10 are told of.
        output = ["0, GPU-aa, 81559", "1, GPU-bb, [N/A]"]
        assert GpuMemories().process(output) == (
            GpuMemory(0, "GPU-aa", 81_559 * 1024**2),
            GpuMemory(1, "GPU-bb", 0),
        )

    @pytest.mark.parametrize(
        "said",
        [
            "No devices were found",
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make "
            "sure that the latest NVIDIA driver is installed and running.",
            "Failed to initialize NVML: Driver/library version mismatch",
        ],
    )
    def test_no_driver(self, said: str) -> None:
        assert GpuMemories().process([said]) == ()

    def test_no_nvidia_smi(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/bin:/usr/bin")
        assert ask(GpuMemories()) == ()


class TestPlacementState:
    # /api/ps of the real server on the CPU, shortened.
    ENTRY = (
        '{"models":[{"name":"tiny:latest","size":287246908,"size_vram":0,"context_length":4096}]}'
    )

    def test_loaded_and_said(self) -> None:
        line = 'level=INFO msg="inference compute" id=cpu library=cpu'
        assert PlacementState().process([self.ENTRY, "", line]) == Placement(
            {"tiny:latest": Loaded(287_246_908, 0)}, (line,)
        )

    def test_nothing_loaded(self) -> None:
        assert PlacementState().process(['{"models":[]}']) == Placement({})

    def test_nobody_answers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """... and systemd does not know the unit."""
        (tmp_path / "systemctl").write_text("#!/bin/sh\n")
        (tmp_path / "systemctl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        silent = ask(PlacementState(), url="http://127.0.0.1:1", unit="x.service")
        assert silent == Placement({}, answers=False)

    @pytest.mark.parametrize(
        "said",
        [
            "", '{"models":[{"name":"tiny', "404 page not found", "null", "[]", "7", "[" * 9_999,
            '{"models":[7]}', '{"models":[{"name":"x"}]}', '{"models":[{"name":"x","size":"7"}]}',
            '{"models":[{"name":7,"size":7}]}', '{"models":[{"name":"x","size":7,"size_vram":-1}]}',
        ],
    )  # fmt: skip
    def test_no_answer_is_not_nothing_loaded(self, said: str) -> None:
        line = 'msg="inference compute" id=cpu library=cpu'
        assert PlacementState().process([said, "", line]) == Placement({}, (line,), answers=False)

    def test_journal_of_this_start_alone(
        self, registry: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder, url = registry
        (folder / "api").mkdir()
        (folder / "api" / "ps").write_text(self.ENTRY)
        lines = ['msg="inference compute" library=CUDA', "GET /api/ps", "CUDA error: out of memory"]
        (tmp_path / "systemctl").write_text("#!/bin/sh\necho 0123abcd\n")
        script = "\n".join(f"echo '{line}'" for line in lines)
        asked = 'case "$*" in *_SYSTEMD_INVOCATION_ID=0123abcd) ;; *) exit 1; esac'
        (tmp_path / "journalctl").write_text(f"#!/bin/sh\n{asked}\n{script}\n")
        for name in ("systemctl", "journalctl"):
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert ask(PlacementState(), url=url, unit="ollama.service") == Placement(
            {"tiny:latest": Loaded(287_246_908, 0)}, (lines[0], lines[2])
        )

    def test_many_loads_do_not_push_out_what_was_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Eight GPUs, and ten loads as llama.cpp tells of each."""
        load = [
            "ggml_cuda_init: found 8 CUDA devices (Total VRAM: 652472 MiB):",
            "load_tensors: offloading output layer to GPU",
            "load_tensors: offloading 35 repeating layers to GPU",
            "load_tensors: offloaded 37/37 layers to GPU",
        ]
        found = [f'msg="inference compute" id=GPU-{n} library=CUDA' for n in range(8)]
        (tmp_path / "journal").write_text("\n".join([*found, *(load * 10), ""]))
        (tmp_path / "systemctl").write_text("#!/bin/sh\necho 0123abcd\n")
        (tmp_path / "journalctl").write_text(f"#!/bin/sh\ncat {tmp_path}/journal\n")
        for name in ("systemctl", "journalctl"):
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        seen = ask(PlacementState(), url="http://127.0.0.1:1", unit="ollama.service")
        assert seen.found == found
        assert seen.log[8:] == tuple(load * 10)


class TestSurroundings:
    @pytest.fixture
    def host(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder for programs that stand before the real ones."""
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        # This very process is the server's.
        self.program(
            tmp_path / "systemctl",
            f"""case "$*" in
            *MainPID*) echo {os.getpid()};;
            *DeviceAllow*) printf 'char-rtc r\\nchar-nvidia* rw\\n';;
            *DropInPaths*) echo /run/x.conf;;
            is-active*) echo inactive; exit 3;;
            esac""",
        )
        return tmp_path

    def program(self, path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def test_all_that_is_told(self, host: Path) -> None:
        listed = ["GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa)", "GPU 1: Tesla T4 (UUID: GPU-bb)"]
        self.program(host / "nvidia-smi", "\n".join(f"echo '{line}'" for line in listed))
        around = ask(SurroundingsState(), unit="x.service", sandboxed=True, has_switches=True)
        assert around.uuids == ("GPU-aa", "GPU-bb")
        assert (around.refusal, around.allowed) == (None, "char-rtc r char-nvidia* rw")
        assert (around.drop_ins, around.fabric) == ("/run/x.conf", "inactive")
        # This machine has none.
        assert around.missing == ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia0")

    def test_driver_that_does_not_answer(self, host: Path) -> None:
        said = "Failed to initialize NVML: Driver/library version mismatch"
        self.program(
            host / "nvidia-smi", f"echo '{said}'; echo 'NVML library version: 580'; exit 18"
        )
        around = ask(SurroundingsState(), unit="x.service", sandboxed=False, has_switches=False)
        assert around.refusal == f"{said} NVML library version: 580"
        assert (around.uuids, around.allowed, around.fabric) == ((), None, None)

    def test_environment_of_the_running_process(
        self, host: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.program(host / "nvidia-smi", "exit 0")
        with subprocess.Popen(
            ["sleep", "60"], env={"CUDA_VISIBLE_DEVICES": "GPU-aa", "PATH": "/bin:/usr/bin"}
        ) as process:
            try:
                self.program(
                    host / "systemctl", f'case "$*" in *MainPID*) echo {process.pid};; esac'
                )
                around = ask(
                    SurroundingsState(), unit="x.service", sandboxed=True, has_switches=False
                )
            finally:
                process.kill()
        assert around.visible == "GPU-aa"

    def test_nothing_known(self) -> None:
        assert SurroundingsState().process(["driver ", "drop-ins "]) == Surroundings()
