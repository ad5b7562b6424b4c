"""The gates on real hosts: one that shows GPUs, and one that has none.

Nothing is broken inside the stand-in for Ollama: the sandbox, the device nodes, the environment,
the driver and the fabric are, and it goes to the CPU as silently as the real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import LabUnderTest, Result, _lab

pytestmark = pytest.mark.slow

INVENTORY = Path("tests/lab/gpu.py")
FITS = "The declared models fit the memory that each server has for them"
PLACED = "Models are wholly on their server's GPUs, or on the CPU by declaration"
PRESENT = "Every GPU that is declared, or was once seen, is on the bus and in the driver"
LOADED = "The loaded driver is the installed one, and new enough for Ollama"
WARM: dict[str, Any] = {"ollama_models": [{"name": "gpt-oss:20b", "load": True}]}


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    """An H100 and a host without a GPU, after their first deploy."""
    for lab in _lab("gates", "--hosts", "3", "--gpu", "gpu1=h100"):
        said = said_by(pyinfra(lab, **WARM))
        assert "[gpu2] ollama.service: CPU by declaration" in said
        assert "[gpu1] ollama.service: CPU by declaration" not in said
        yield lab


def pyinfra(lab: LabUnderTest, *, check: bool = True, **settings: Any) -> Result:
    environment = {"LAB_SETTINGS": json.dumps(settings)}
    return lab.pyinfra("-y", inventory=INVENTORY, check=check, **environment)


def failing(lab: LabUnderTest, **settings: Any) -> dict[str, list[str]]:
    return lab.failing(inventory=INVENTORY, LAB_SETTINGS=json.dumps(settings))


def said_by(result: Result) -> str:
    return result.stdout + result.stderr


def refused(lab: LabUnderTest, **settings: Any) -> str:
    """What a deploy says that fails on gpu1, and on no other host."""
    result = pyinfra(lab, check=False, **settings)
    assert result.returncode != 0, said_by(result)
    assert "[gpu2] Error" not in said_by(result)
    # Long lines are wrapped nowhere, but begin with the host's name each.
    return said_by(result)


def running(lab: LabUnderTest, host: str) -> dict[str, tuple[int, int]]:
    """Model to its size and what of it is on GPUs, as /api/ps shows it."""
    address = lab.state["hosts"][host]["address"]
    models = json.loads(lab.ssh(host, f"curl -fsS http://{address}:11434/api/ps"))["models"]
    return {model["name"]: (model["size"], model["size_vram"]) for model in models}


@contextmanager
def drop_in(lab: LabUnderTest, *lines: str) -> Iterator[None]:
    """gpu1's Ollama with these lines in its unit, until the end; the next boot forgets them too."""
    folder = "/run/systemd/system/ollama.service.d"
    text = "\\n".join(["[Service]", *lines, ""])
    restart = "systemctl daemon-reload && systemctl restart ollama"
    lab.ssh("gpu1", f"mkdir -p {folder} && printf '{text}' > {folder}/broken.conf && {restart}")
    try:
        yield
    finally:
        lab.ssh("gpu1", f"rm -r {folder} && {restart}")


@contextmanager
def gpus(lab: LabUnderTest, *profile: str) -> Iterator[None]:
    """gpu1 with other GPUs, whose nodes are made as at a boot; an H100 again in the end."""

    def show(*words: str) -> None:
        lab.command("gpu", "gpu1", *words)
        lab.ssh("gpu1", "systemctl restart llm-fleet-gpu-devices nvidia-persistenced ollama")

    show(*profile)
    try:
        yield
    finally:
        show("h100")


def test_models_are_on_the_gpu_and_nothing_is_left_to_do(lab: LabUnderTest) -> None:
    [(size, on_gpu)] = running(lab, "gpu1").values()
    assert on_gpu == size > 0
    [(size, on_gpu)] = running(lab, "gpu2").values()
    assert (on_gpu, size > 0) == (0, True)
    assert failing(lab, **WARM) == {}
    assert lab.deploy(inventory=INVENTORY, LAB_SETTINGS=json.dumps(WARM)) == {}


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        # ProtectClock alone is left then, which closes all devices but the clock.
        ("DeviceAllow=", "The unit may not open /dev/nvidia* (DeviceAllow=char-rtc r)."),
        (
            "Environment=CUDA_VISIBLE_DEVICES=GPU-00000000-0000-0000-0000-000000000000",
            "CUDA_VISIBLE_DEVICES = GPU-00000000-0000-0000-0000-000000000000 names what this host "
            "does not have; it has GPU-5a3f1c00-",
        ),
        # Nothing that can be seen from outside: Ollama itself has to be asked.
        ("InaccessiblePaths=/dev/nvidia-uvm", "Should it find none again, OLLAMA_DEBUG=2 has it"),
    ],
    ids=["sandbox", "unknown GPU", "no memory manager"],
)
def test_silent_cpu_fails_deploy_and_compliance(lab: LabUnderTest, line: str, cause: str) -> None:
    with drop_in(lab, line):
        said = refused(lab, **WARM)
        assert running(lab, "gpu1")["gpt-oss:20b"][1] == 0
        assert "gpu1: Ollama found 0 of its 1 GPUs when it started" in said
        assert "gpt-oss:20b is on the CPU, and wholly so. Driver: 595.91.07." in said
        assert "library=cpu" in said
        assert cause in said
        # As the real one: not a word of the reason.
        assert "CUDA:" not in lab.ssh("gpu1", "journalctl -u ollama -o cat -n 200")
        assert failing(lab, **WARM)[PLACED] == ["gpu1"]
    # The way out: nothing but what was in the way.
    pyinfra(lab, **WARM)
    assert failing(lab, **WARM) == {}


def test_silent_cpu_is_found_when_nothing_is_loaded(lab: LabUnderTest) -> None:
    """By what Ollama said when it started; the check loads something and looks."""
    with drop_in(lab, "DeviceAllow="):
        assert "Ollama found 0 of its 1 GPUs when it started" in refused(lab)
        assert failing(lab)[PLACED] == ["gpu1"]


def test_what_does_not_fit_is_refused_before_anything_is_changed(lab: LabUnderTest) -> None:
    wanted = {**WARM, "ollama_context_length": 32_768, "ollama_num_parallel": 8}
    before = lab.ssh("gpu1", "cat /etc/systemd/system/ollama*.service /etc/llm-fleet/*")
    with gpus(lab, "h100", "--memory", "1800"):
        said = refused(lab, **wanted)
        assert "gpu1: gpt-oss:20b needs 2." in said
        assert (
            "with a context of 32768 tokens, 8 requests at once and a cache of f16, and there is 1 "
            "GPU with 1.8 GiB: ollama_num_parallel = 4 or ollama_kv_cache_type = 'q8_0' or "
            "ollama_context_length = 16384 fits"
        ) in said
        assert "models_cpu_offload = ['gpt-oss:20b']" in said
        assert lab.ssh("gpu1", "cat /etc/systemd/system/ollama*.service /etc/llm-fleet/*") == before
        # The host that is not concerned has what was declared.
        assert "OLLAMA_NUM_PARALLEL=8" in lab.ssh("gpu2", "systemctl cat ollama")
        assert failing(lab, **wanted)[FITS] == ["gpu1"]
        # What the message names does it.
        pyinfra(lab, **(wanted | {"ollama_num_parallel": 1}))
        assert failing(lab, **(wanted | {"ollama_num_parallel": 1})) == {}
    pyinfra(lab, **WARM)


def test_offload_is_allowed_by_name(lab: LabUnderTest) -> None:
    allowed = {**WARM, "models_cpu_offload": ["gpt-oss:20b"]}
    with gpus(lab, "h100", "--memory", "1200"):
        assert "gpt-oss:20b needs 1.3 GiB" in refused(lab, **WARM)
        pyinfra(lab, **allowed)
        size, on_gpu = running(lab, "gpu1")["gpt-oss:20b"]
        assert 0 < on_gpu < size
        assert failing(lab, **allowed) == {}
        # A declared figure that is too small passes the first gate, and not the second.
        wrong = {"ollama_models": [{"name": "gpt-oss:20b", "load": True, "memory": 0.3}]}
        said = refused(lab, **wrong)
        assert "gpt-oss:20b is only to " in said
        assert "models_cpu_offload" in said
        assert failing(lab, **wrong)[PLACED] == ["gpu1"]
    pyinfra(lab, **WARM)


def test_gpu_that_is_gone_fails_deploy_and_compliance(lab: LabUnderTest) -> None:
    """Undeclared, by what was once seen, until it is declared that there is none."""
    forgotten = {**WARM, "gpu_count": None}
    wanted = {**WARM, "gpu1": {"gpu_count": 1}}
    before = lab.ssh("gpu1", "cat /etc/systemd/system/ollama*.service /etc/llm-fleet/*")
    with gpus(lab, "none"):
        for settings in (wanted, forgotten):
            said = refused(lab, **settings)
            assert "gpu1: 0 of 1 GPUs on the bus (" in said
            assert "missing: 0000:17:00.0 (GPU-5a3f1c00-0000-4000-8000-000000000000)" in said
            assert failing(lab, **settings)[PRESENT] == ["gpu1"]
        lab.ssh("gpu1", "rm /etc/llm-fleet/gpus.json")
        assert "a driver was installed here for one" in refused(lab, **forgotten)
        assert failing(lab, **forgotten)[PRESENT] == ["gpu1"]
        # Declared, it is forgotten: the lab's inventory has what `lab gpu` shows.
        assert "[gpu1] ollama.service: CPU by declaration" in said_by(pyinfra(lab, **WARM))
        assert failing(lab, **WARM) == {}
    pyinfra(lab, **WARM)
    assert lab.ssh("gpu1", "cat /etc/systemd/system/ollama*.service /etc/llm-fleet/*") == before
    # A host that never had one says so, and is no failure.
    said = said_by(pyinfra(lab, **forgotten))
    assert "[gpu2] WARN: no GPU was ever seen here" in said
    assert "[gpu2] ollama.service: on the CPU, and nobody declared that" in said
    assert "[gpu1] WARN" not in said


def test_one_of_several_is_gone(lab: LabUnderTest) -> None:
    with gpus(lab, "8xh100"):
        pyinfra(lab, **WARM)
        lab.ssh("gpu1", "mv /proc/driver/nvidia/gpus/0000:1a:00.0 /run/lab-gpu/lost")
        said = refused(lab, **WARM)
        assert (
            "gpu1: 7 of 8 GPUs in the driver (gpu_count = 8); missing: 0000:1a:00.0 (GPU-" in said
        )
        assert failing(lab, **WARM)[PRESENT] == ["gpu1"]
        lab.ssh("gpu1", "mv /run/lab-gpu/lost /proc/driver/nvidia/gpus/0000:1a:00.0")
        assert PRESENT not in failing(lab, **WARM)
    pyinfra(lab, **WARM)


def test_cpu_by_declaration_beside_a_gpu(lab: LabUnderTest) -> None:
    on_cpu = {**WARM, "ollama_instances": [{"name": "slow", "port": 11434, "gpus": []}]}
    said = said_by(pyinfra(lab, **on_cpu))
    assert "[gpu1] ollama@slow.service: CPU by declaration" in said
    assert running(lab, "gpu1")["gpt-oss:20b"][1] == 0
    assert failing(lab, **on_cpu) == {}
    pyinfra(lab, **WARM)


def test_driver_below_the_floor(lab: LabUnderTest) -> None:
    """Somebody else's driver too is one that Ollama has to be able to use."""
    theirs = {**WARM, "driver_source": "none"}
    version = "/run/lab-gpu/module/nvidia/version"
    lab.ssh("gpu1", f"echo 535.274.02 > {version}")
    try:
        said = refused(lab, **theirs)
        assert "driver 535.274.02 is loaded, and Ollama needs 550 or newer" in said
        assert "driver_source = 'nvidia'" in said
        assert failing(lab, **theirs)[LOADED] == ["gpu1"]
    finally:
        lab.ssh("gpu1", f"echo 595.91.07 > {version}; systemctl restart ollama")
    pyinfra(lab, **theirs)
    assert failing(lab, **theirs) == {}


def test_fabric_manager_that_does_not_run(lab: LabUnderTest) -> None:
    """Error 802: nvidia-smi looks fine, and Ollama uses the CPU."""
    with gpus(lab, "8xh100"):
        assert failing(lab, **WARM)[PLACED] == ["gpu1"]
        # This run installs and starts it, which the running Ollama does not notice.
        said = said_by(pyinfra(lab, **WARM))
        assert "ollama.service started before its GPUs were there; restarting it" in said
        assert failing(lab, **WARM) == {}
