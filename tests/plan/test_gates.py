"""The gates: what is refused before a load, what fails after it, and in which words."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest

from fleet.driver.facts import (
    DrivenGpu,
    DrivenGpus,
    DriverState,
    DriverStateFact,
    Gpu,
    GpuHardware,
    GpuHardwareFact,
    Module,
)
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
from fleet.gates.memory import MIB
from fleet.gates.placement import Loaded, Placement, Surroundings, cause
from fleet.kit.errors import SettingsError
from fleet.models.choice import GIB, Memory
from fleet.models.facts import HostMemory
from tests.gguf import GPT_OSS, gguf
from tests.plan.simulation import Answers, Plan, bare, plan

FIRST = "Memory | Judge whether the models fit"
FINAL = "Memory | Judge whether the models fit the GPUs"
PLACED = "Placement | Judge where the models are"
T4, H100 = 15_360, 81_559  # MiB
KIND = "application/vnd.ollama.image."
UUIDS = [f"GPU-5a3f1c00-0000-4000-8000-{n:012x}" for n in range(8)]
FOUND = 'msg="inference compute" id=GPU-1 library=CUDA compute=9.0'
AROUND = Surroundings("580.178.04", uuids=(UUIDS[0],))
NOT_FOUND = 'msg="inference compute" id=cpu library=cpu compute=""'


def manifest(weights: int) -> ManifestAnswer:
    layer = {"mediaType": f"{KIND}model", "digest": "sha256:ab", "size": weights}
    return ManifestAnswer({"layers": [layer]})


def with_gpus(*sizes: int, ram: int = 256) -> Answers:
    """A host whose driver tells of GPUs with these MiB, and whose registry has gpt-oss."""
    hardware = GpuHardware(tuple(Gpu(f"0000:{i:02x}:00.0", 0x2330) for i in range(len(sizes))))
    memory = Memory(tuple(size * MIB for size in sizes), ram * GIB)
    return bare() | {
        GpuHardwareFact: lambda: hardware,
        DriverStateFact: lambda nouveau_conf: DriverState(
            loaded=Module("580.178.04", "open"), kernel="6.12"
        ),
        DrivenGpus: lambda: tuple(DrivenGpu(i, UUIDS[i], "GPU") for i in range(len(sizes))),
        GpuMemories: lambda: tuple(GpuMemory(i, UUIDS[i], n * MIB) for i, n in enumerate(sizes)),
        HostMemory: lambda: memory,
        ModelManifest: registry,
        FileHead: head,
        SurroundingsState: lambda unit, sandboxed, has_switches: AROUND,
    }


def registry(path: str, url: str, digest: str | None, environment: Any) -> ManifestAnswer:
    assert path.startswith("/var/lib/ollama/models/manifests/")
    if "gpt-oss/20b" in path:
        return manifest(13_793_422_144)
    if "gpt-oss/120b" in path:
        return manifest(65_369_818_941)
    return ManifestAnswer(None, "no manifest: curl: (22) 401")


def head(path: str | None, url: str | None, environment: Any) -> bytes:
    layers = 36 if url and "120b" in url else 24
    keys = GPT_OSS | {"gptoss.block_count": layers}
    return gguf(**{name.replace(".", "__"): value for name, value in keys.items()})


def planned(answers: Answers, **settings: Any) -> Plan:
    return plan({"gpu1": ("gpu", {"driver_source": "none", **settings})}, {"gpu1": answers})


def refusal(done: Plan, step: str = FIRST) -> str:
    """The words of the only command of a step, which fails the host."""
    [line] = done.step("gpu1", step).lines
    assert line.endswith(">&2; exit 1")
    return shlex.split(line)[2]


def passes(answers: Answers, **settings: Any) -> bool:
    done = planned(answers, **settings)
    return not [name for name in done.names("gpu1") if name in (FIRST, FINAL, PLACED)]


def model(name: str = "gpt-oss:20b", **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


class TestMemory:
    def test_what_fits(self) -> None:
        assert passes(with_gpus(T4))
        assert passes(with_gpus(H100), ollama_models=["gpt-oss:120b"])
        assert passes(
            with_gpus(40_960, 40_960), ollama_models=["gpt-oss:120b"], ollama_context_length=32_768
        )

    def test_gate_is_the_first_step_of_all(self) -> None:
        done = planned(with_gpus(T4), ollama_context_length=131_072)
        assert done.names("gpu1")[0] == FIRST

    def test_context(self) -> None:
        assert refusal(planned(with_gpus(T4), ollama_context_length=131_072)) == (
            "@fake/gpu1: gpt-oss:20b needs 16.9 GiB (weights 12.8, cache 3.0, overhead 1.0) with a "
            "context of 131072 tokens, 1 request at once and a cache of f16, and there is 1 GPU "
            "with 15.0 GiB: ollama_kv_cache_type = 'q4_0' or ollama_context_length = 32768 fits; "
            "or declare a smaller model, or models_cpu_offload = ['gpt-oss:20b'] to run it partly "
            "on the CPU, slowly"
        )
        assert passes(with_gpus(T4), ollama_context_length=32_768)

    def test_requests_at_once(self) -> None:
        said = refusal(planned(with_gpus(24_576), ollama_num_parallel=16))
        # Unset, Ollama takes a context of 32768 for so much memory.
        assert "a context of 32768 tokens, 16 requests at once" in said
        assert "ollama_num_parallel = 8 or ollama_kv_cache_type = 'q8_0' or " in said
        assert passes(with_gpus(24_576), ollama_num_parallel=8)
        assert passes(with_gpus(24_576), ollama_num_parallel=16, ollama_kv_cache_type="q8_0")

    def test_nothing_helps(self) -> None:
        said = refusal(planned(with_gpus(T4), ollama_models=["gpt-oss:120b"]))
        assert "with 15.0 GiB: no setting makes it fit; or declare a smaller model" in said

    def test_batch_that_ollama_lowers_by_itself_is_not_counted(self) -> None:
        """Seen of the scheduler: 2048, then 1024, then 512, before anything leaves the GPU."""
        assert passes(with_gpus(16_376), ollama_context_length=65_536)
        fixed = model("fixed", base="gpt-oss:20b", parameters={"num_batch": 2_048})
        said = refusal(
            planned(with_gpus(16_376), ollama_context_length=65_536, ollama_models=[fixed])
        )
        assert "fixed:latest needs 17.4 GiB (weights 12.8, cache 1.5, overhead 3.0)" in said

    def test_models_own_context_goes_before_the_servers(self) -> None:
        analyst = model("analyst", base="gpt-oss:20b", parameters={"num_ctx": 131_072})
        said = refusal(planned(with_gpus(T4), ollama_models=[analyst]))
        assert "analyst:latest needs 16.9 GiB" in said
        assert "num_ctx = 32768 of analyst fits" in said

    def test_those_that_stay_loaded_fit_together(self) -> None:
        both = [model("gpt-oss:120b", load=True), model(load=True)]
        settings = {"ollama_context_length": 8_192, "ollama_models": both}
        assert passes(with_gpus(H100), **settings)
        said = refusal(planned(with_gpus(71_680), **settings))
        assert (
            "gpt-oss:120b (62.1 GiB) and gpt-oss:20b (14.0 GiB) are to stay loaded together, which "
            "needs 76.1 GiB, and there is 1 GPU with 70.0 GiB: take `load` from one of them"
        ) in said
        # Loaded when they are asked for, each makes room for the other.
        alone = [model(), model("gpt-oss:120b", load=True)]
        assert passes(with_gpus(71_680), **(settings | {"ollama_models": alone}))

    def test_those_that_stay_loaded_do_not_push_each_other_out(self) -> None:
        """They fit together, but Ollama wants a fifth of what is left free for the second."""
        both = [model("gpt-oss:120b", load=True), model(load=True)]
        said = refusal(planned(with_gpus(H100), ollama_models=both, ollama_context_length=32_768))
        assert (
            "gpt-oss:20b would push out what is loaded before it: Ollama expects 13.9 GiB of it, "
            "and takes at most 80% of what is free then, 12.8 GiB"
        ) in said
        # The first one has no others to push out; the large one as the second has.
        small_first = {"ollama_models": both[::-1], "ollama_context_length": 8_192}
        assert "gpt-oss:120b would push out" in refusal(planned(with_gpus(H100), **small_first))
        assert passes(with_gpus(H100, H100), ollama_models=both, ollama_context_length=32_768)

    def test_models_that_share_weights_are_counted_once(self) -> None:
        shared = [model(load=True), model("analyst", base="gpt-oss:20b", load=True)]
        assert passes(with_gpus(T4), ollama_models=shared)

    def test_instances_are_judged_each_by_its_own_gpus(self) -> None:
        servers = [
            {"name": "a", "port": 11434, "gpus": [0]},
            {"name": "b", "port": 11435, "gpus": [1], "context_length": 131_072},
        ]
        said = refusal(planned(with_gpus(T4, T4), ollama_instances=servers))
        assert said.startswith("@fake/gpu1: instance b: gpt-oss:20b needs 16.9 GiB")
        assert "context_length = 32768 of instance b fits" in said
        assert passes(with_gpus(T4, H100), ollama_instances=servers)

    def test_shared_gpus_hold_what_the_others_keep_there(self) -> None:
        servers = [
            {"name": name, "port": port, "gpus": [0], "shared_gpus": True}
            for name, port in (("a", 11434), ("b", 11435))
        ]
        warm = {"ollama_models": [model(load=True)], "ollama_instances": servers}
        assert passes(with_gpus(40_960), ollama_context_length=4_096, **warm)
        said = refusal(planned(with_gpus(24_576), ollama_context_length=4_096, **warm))
        assert "14.0 GiB of it for what other instances keep loaded" in said

    def test_on_the_cpu_by_declaration_the_hosts_memory_counts(self) -> None:
        servers = [{"name": "cpu", "port": 11434, "gpus": []}]
        small = with_gpus(T4, ram=12)
        said = refusal(planned(small, ollama_instances=servers))
        assert "there is 11.0 GiB of memory for models, and no GPU" in said
        assert "models_cpu_offload" not in said
        assert passes(with_gpus(T4, ram=32), ollama_instances=servers)

    def test_gpu_that_shares_the_hosts_memory(self) -> None:
        """A GB10, of which nvidia-smi says [N/A]."""
        spark = with_gpus(0, ram=128) | {HostMemory: lambda: Memory((), 128 * GIB)}
        assert passes(spark, ollama_models=["gpt-oss:120b"], ollama_context_length=32_768)
        small = with_gpus(0, ram=32) | {HostMemory: lambda: Memory((), 32 * GIB)}
        said = refusal(planned(small, ollama_models=["gpt-oss:120b"]))
        assert "there is 1 GPU with 31.0 GiB" in said

    def test_host_without_a_gpu(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "pyinfra")
        small = with_gpus(T4, ram=8) | {GpuHardwareFact: GpuHardware}
        assert "gpt-oss:20b needs 13.0 GiB" in refusal(planned(small))
        assert passes(small | {HostMemory: lambda: Memory((), 32 * GIB)})
        assert "ollama.service: on the CPU, and nobody declared that" in caplog.text
        assert passes(small | {HostMemory: lambda: Memory((), 32 * GIB)}, gpu_count=0)
        assert "ollama.service: CPU by declaration" in caplog.text

    def test_offload_by_name(self) -> None:
        large = {"ollama_models": ["gpt-oss:120b"], "ollama_context_length": 8_192}
        assert passes(with_gpus(T4), models_cpu_offload=["gpt-oss:120b"], **large)
        # Memory of the host is no endless one either.
        said = refusal(planned(with_gpus(T4, ram=32), models_cpu_offload=["gpt-oss:120b"], **large))
        assert "gpt-oss:120b needs" in said

    def test_offload_of_an_unknown_name(self) -> None:
        with pytest.raises(SettingsError, match="'gpt-oss:12b' is none of ollama_models; did you"):
            planned(with_gpus(T4), models_cpu_offload=["gpt-oss:12b"])

    def test_num_gpu_0_is_no_silent_way_to_the_cpu(self) -> None:
        slow = {"ollama_models": [model("slow", base="gpt-oss:20b", parameters={"num_gpu": 0})]}
        assert "slow:latest has num_gpu = 0" in refusal(planned(with_gpus(T4), **slow))
        assert passes(with_gpus(T4), models_cpu_offload=["slow"], **slow)

    def test_declared_figure_goes_before_what_is_reckoned(self) -> None:
        assert passes(with_gpus(T4), ollama_models=[model("gpt-oss:120b", memory=12.5)])
        said = refusal(planned(with_gpus(T4), ollama_models=[model(memory=40.0)]))
        assert "gpt-oss:20b needs 40.0 GiB" in said

    def test_unknown_size_is_said(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "pyinfra")
        assert passes(with_gpus(T4), ollama_models=["hf.co/team/secret:Q4"])
        assert (
            "hf.co/team/secret:Q4: how much memory it needs is not known: no manifest: curl: (22) "
            "401; declare `memory` for it in ollama_models"
        ) in caplog.text
        # By the last judgement alone, planned and executed: a bare host has nothing to ask with.
        assert caplog.text.count("is not known") == 2

    def test_weights_alone_are_judged_where_the_cache_is_not_known(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "pyinfra")
        strange = with_gpus(T4) | {FileHead: lambda path, url, environment: gguf(a=1)}
        assert passes(strange, ollama_context_length=32_768)
        assert "does not tell its architecture.block_count; its weights alone" in caplog.text
        assert "needs 61.9 GiB" in refusal(planned(strange, ollama_models=["gpt-oss:120b"]))

    def test_published_figures_where_nobody_answers(self) -> None:
        silent = with_gpus(T4) | {
            ModelManifest: lambda path, url, digest, environment: ManifestAnswer(None, "no route")
        }
        assert passes(silent)
        assert "needs 16.9 GiB" in refusal(planned(silent, ollama_context_length=131_072))

    def test_file_of_ones_own(self) -> None:
        house = {"ollama_models": [model("house", gguf="/srv/house.gguf", sha256="ab" * 32)]}
        asked = []

        def size(place: str, environment: Any) -> int:
            asked.append(place)
            return 30 * GIB

        answers = with_gpus(T4) | {FileSize: size}
        assert "house:latest needs 31." in refusal(planned(answers, **house))
        assert set(asked) == {"/srv/house.gguf"}

    def test_auto_is_what_it_is_on_this_host(self) -> None:
        said = refusal(planned(with_gpus(T4), ollama_models=["auto"], ollama_num_parallel=16))
        assert "gpt-oss:20b needs" in said

    def test_auto_may_leave_the_gpu_by_that_name(self) -> None:
        small = {"ollama_models": ["auto"], "ollama_context_length": 131_072}
        assert "or models_cpu_offload = ['auto'] to run" in refusal(planned(with_gpus(T4), **small))
        assert passes(with_gpus(T4), models_cpu_offload=["auto"], **small)
        partly = with_gpus(T4) | {
            PlacementState: lambda url, unit: Placement({"gpt-oss:20b": Loaded(100, 60)}, (FOUND,))
        }
        assert passes(partly, models_cpu_offload=["auto"], **small)

    def test_gpus_that_do_not_tell_yet_are_judged_after_the_driver(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO", "pyinfra")
        silent = with_gpus(T4) | {GpuMemories: tuple}
        assert passes(silent, ollama_context_length=131_072)
        assert "nvidia-smi does not tell of the GPUs on the bus: whether the models fit was" in (
            caplog.text
        )

    def test_judged_again_before_ollama_is_touched(self) -> None:
        done = planned(with_gpus(T4), ollama_context_length=131_072)
        names = [step.name for step in done.steps["gpu1"]]
        assert names.index("Driver | Require what Ollama needs") < names.index(FINAL)
        assert names.index(FINAL) < names.index("Ollama | Install tools")
        assert refusal(done, FINAL) == refusal(done)


class TestPlacement:
    def failing(self, placement: Placement, *sizes: int, **settings: Any) -> str:
        answers = with_gpus(*(sizes or (H100,))) | {PlacementState: lambda url, unit: placement}
        return refusal(planned(answers, **settings), PLACED)

    def fine(self, placement: Placement, *sizes: int, **settings: Any) -> bool:
        answers = with_gpus(*(sizes or (H100,))) | {PlacementState: lambda url, unit: placement}
        return passes(answers, **settings)

    def test_on_the_gpu(self) -> None:
        assert self.fine(Placement({"gpt-oss:20b": Loaded(100, 100)}, (FOUND,)))

    def test_nothing_loaded_and_a_journal_that_forgot(self) -> None:
        assert self.fine(Placement({}))

    def test_api_that_does_not_answer(self) -> None:
        said = self.failing(Placement({}, (FOUND,), answers=False))
        assert "@fake/gpu1: its API does not answer, so nobody knows" in said
        assert "See `systemctl status ollama.service`" in said

    def test_on_the_cpu(self) -> None:
        placement = Placement({"gpt-oss:20b": Loaded(100, 0)}, ("first", NOT_FOUND))
        assert self.failing(placement) == (
            "@fake/gpu1: Ollama found 0 of its 1 GPUs when it started; gpt-oss:20b is on the CPU, "
            f"and wholly so. Driver: 580.178.04. ollama.service says:\n  {NOT_FOUND}\n  first\n"
            "The GPUs are there now, and Ollama looks for them only when it starts: restart "
            "ollama.service. Should it find none again, OLLAMA_DEBUG=2 has it say why"
        )

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"refusal": "Failed to initialize NVML: Driver/library version mismatch"}, "Reboot"),
            ({"fabric": "failed"}, "fabric manager, which is failed (CUDA's error 802"),
            ({"missing": ("/dev/nvidia-uvm",)}, "/dev/nvidia-uvm is not there: restart"),
            ({"visible": f"{UUIDS[0]},GPU-1"}, "names what this host does not have; it has GPU-5a"),
            ({"visible": "1"}, "CUDA_VISIBLE_DEVICES = 1 names what this host does not have"),
            ({"allowed": "char-rtc r"}, "may not open /dev/nvidia* (DeviceAllow=char-rtc r). Run"),
            ({"allowed": "", "drop_ins": "/run/x.conf"}, "Take /run/x.conf away"),
            ({"visible": UUIDS[0], "allowed": "char-nvidia* rw", "fabric": "active"}, "restart o"),
            ({"visible": "0", "allowed": None}, "restart ollama.service"),
        ],
    )
    def test_cause_is_found_on_the_host(self, changed: dict[str, Any], words: str) -> None:
        around = replace(AROUND, **changed)
        assert words in cause(around, "ollama.service", 1)

    def test_host_is_asked_as_the_server_runs(self) -> None:
        asked = []

        def look(unit: str, *, sandboxed: bool, has_switches: bool) -> Surroundings:
            asked.append((unit, sandboxed, has_switches))
            return AROUND

        hardware = GpuHardware(tuple(Gpu(f"0000:{i:02x}:00.0", 0x2330) for i in range(2)), 4)
        answers = with_gpus(H100, H100) | {
            PlacementState: lambda url, unit: Placement({}, (NOT_FOUND,)),
            GpuHardwareFact: lambda: hardware,
            SurroundingsState: look,
        }
        servers = [
            {"name": "a", "port": 11434, "gpus": [0]},
            {"name": "b", "port": 11435, "gpus": [1], "runtime": "docker"},
        ]
        image = f"ollama/ollama:0.32.7@sha256:{'ab' * 32}"
        settings = {"ollama_instances": servers, "ollama_image": image, "docker_enabled": True}
        said = refusal(planned(answers, **settings), PLACED)
        assert set(asked) == {
            ("ollama@a.service", True, True), ("ollama@b.service", False, True),
        }  # fmt: skip
        assert said.count("Ollama found 0 of its 1 GPUs") == 2

    def test_some_gpus_are_missing(self) -> None:
        said = self.failing(Placement({}, (FOUND, FOUND)), H100, H100, H100)
        assert "Ollama found 2 of its 3 GPUs" in said

    def test_card_that_is_given_to_something_else(self) -> None:
        """One that vfio-pci holds is on the bus, and no driver tells of it."""
        said = self.failing(Placement({}, (FOUND,)), H100, H100)
        assert "nvidia-smi tells of 1 of 2 GPUs on the bus" in said
        assert "name those that are Ollama's in ollama_instances, with gpus" in said

    @pytest.mark.parametrize(
        ("around", "found", "lines"),
        [
            (AROUND, NOT_FOUND, 2),
            (AROUND, FOUND, 0),
            (replace(AROUND, fabric="failed"), NOT_FOUND, 0),
            (replace(AROUND, uuids=()), NOT_FOUND, 0),
        ],
        ids=["mended", "fine", "fabric", "no GPU answers"],
    )
    def test_server_that_started_too_early_starts_again(
        self, around: Surroundings, found: str, lines: int
    ) -> None:
        """Once what was in the way is gone; before any model is loaded."""
        answers = with_gpus(H100) | {
            PlacementState: lambda url, unit: Placement({}, (found,)),
            SurroundingsState: lambda unit, sandboxed, has_switches: around,
        }
        done = planned(answers)
        step = done.step("gpu1", "Placement | Restart what started before its GPUs")
        assert len(step.lines) == lines
        if lines:
            assert "systemctl restart ollama.service" in step.lines[0]
            assert "http://" in step.lines[1]
            names = [step.name for step in done.steps["gpu1"]]
            assert names.index(step.name) < names.index("Models | Provide the models")

    def test_partly_on_the_cpu(self) -> None:
        placement = Placement({"gpt-oss:20b": Loaded(100, 60)}, (FOUND,))
        said = self.failing(placement)
        assert "gpt-oss:20b is only to 60 % on the GPU, the rest is on the CPU" in said
        assert "allow it by name in models_cpu_offload" in said
        assert self.fine(placement, models_cpu_offload=["gpt-oss:20b"])

    def test_allowed_partly_is_not_allowed_wholly(self) -> None:
        placement = Placement({"gpt-oss:20b": Loaded(100, 0)}, (FOUND,))
        assert "wholly so" in self.failing(placement, models_cpu_offload=["gpt-oss:20b"])

    def test_process_that_models_share_has_one_name(self) -> None:
        placement = Placement({"gpt-oss:20b": Loaded(100, 60)}, (FOUND,))
        custom = {"ollama_models": ["gpt-oss:20b", model("analyst", base="gpt-oss:20b")]}
        assert self.fine(placement, models_cpu_offload=["analyst"], **custom)

    def test_host_without_a_gpu_is_on_the_cpu_by_declaration(self) -> None:
        placement = Placement({"gpt-oss:20b": Loaded(100, 0)}, (NOT_FOUND,))
        answers = with_gpus(H100) | {
            PlacementState: lambda url, unit: placement,
            GpuHardwareFact: GpuHardware,
        }
        assert passes(answers)

    def test_gpus_that_do_not_work_do_not_make_it_one(self) -> None:
        """nvidia-smi does not answer, but the bus has them."""
        placement = Placement({"gpt-oss:20b": Loaded(100, 0)}, (NOT_FOUND,))
        answers = with_gpus(H100) | {
            PlacementState: lambda url, unit: placement,
            GpuMemories: tuple,
            DrivenGpus: tuple,
            HostMemory: lambda: Memory((), 256 * GIB, has_silent_gpu=True),
        }
        assert "Ollama found 0 of its 1 GPUs" in refusal(planned(answers), PLACED)

    def test_each_server_is_asked_and_one_without_gpus_left_out(self) -> None:
        servers = [
            {"name": "a", "port": 11434, "gpus": [0]},
            {"name": "b", "port": 11435, "gpus": []},
        ]
        asked = set()

        def look(url: str, unit: str) -> Placement:
            asked.add((url, unit))
            return Placement({"gpt-oss:20b": Loaded(100, 0)}, (NOT_FOUND,))

        answers = with_gpus(H100) | {PlacementState: look}
        said = refusal(planned(answers, ollama_instances=servers), PLACED)
        assert asked == {("http://127.0.0.1:11434", "ollama@a.service")}
        assert "ollama@a.service says" in said

    def test_asked_last(self) -> None:
        names = [step.name for step in planned(with_gpus(H100)).steps["gpu1"]]
        assert names[-1].startswith("Record | ")
        assert names[-2] == "Roles | Take back what is declared no more"
        assert names[-4] == PLACED
        assert names[-5] == "Models | Provide the models"
