"""Whatever comes from outside is read as what it must be, or refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyinfra.api import FactBase

from fleet.dify.facts import DifyKeyPrints, DifyPending
from fleet.docker.facts import DockerInfo
from fleet.gates.facts import FileHead, FileSize, GpuMemories, ModelManifest, PlacementState
from fleet.gates.gguf import HEAD, read_keys
from fleet.gates.memory import Load, need, prediction, shape_of
from fleet.kit.facts.jobs import FailedJobs, FetchJob, LoggedJob
from fleet.kit.loaders import LoaderJob
from fleet.models.facts import HostMemory, ModelsState
from fleet.ollama.facts import OllamaModels
from fleet.platform.record import DEPLOYED, DEPLOYING, DeployedRecord
from manifests import Manifest
from ollama_protocol import RUNNING, SHOWN, is_pinned, load_request, trained_context
from outside import FormError, judged
from tests.gguf import GPT_OSS, gguf
from tests.unit.models.loader_rig import Ollama, Run, model

LAYER = {"digest": f"sha256:{'ab' * 32}", "size": 5, "mediaType": "x"}
ENTRY = {"phase": "pulling", "completed": 5, "total": 9, "rate": 1, "error": ""}
# What each is when all is well; the worst are near to it.
GOOD: dict[str, Any] = {
    "manifest": {"layers": [LAYER], "config": LAYER},
    "ps": {
        "models": [{
            "name": "a:1", "size": 5, "size_vram": 5, "context_length": 4096,
            "expires_at": "2319-03-03T02:18:13Z",
        }]
    },
    "tags": {"models": [{"name": "a:1", "size": 5, "digest": "ab"}]},
    "show": {"model_info": {"x.context_length": 5}, "capabilities": ["completion"]},
    "check": {"models": ["a:1"], "pending": {"a:1": "x"},
              "undeclared": {"b:1": {"size": 5, "in_use": False}}},
    "record": {
        "schema": "llm-fleet-deployed/1", "version": "1", "commit": "ab" * 20, "dirty": False,
        "who": "a@b", "when": "2026-11-30T20:15:00Z", "since": "2026-11-30T20:15:00Z",
        "run": "1a2b3c4d", "settings": "ab" * 32,
    },
    "state": {"finished": False, "ok": False, "notes": [], "models": {"a:1": ENTRY}},
}  # fmt: skip
STATE = ["active", "success"]
RECORDS = (DEPLOYED, DEPLOYING)
# The lines of a fact's output around a text.
FACTS: list[tuple[FactBase[Any], Callable[[str], list[str]]]] = [
    (ModelManifest(), lambda text: ["disk", *text.splitlines()]),
    (ModelManifest(), lambda text: ["registry", *text.splitlines()]),
    (ModelManifest(), str.splitlines),
    (PlacementState(), str.splitlines),
    (OllamaModels(), str.splitlines),
    (
        DeployedRecord(),
        lambda text: [f"{path} {line}" for line in text.splitlines() for path in RECORDS],
    ),
    (ModelsState(), str.splitlines),
    (
        HostMemory(),
        lambda text: [f"{kind} {line}" for line in text.splitlines() for kind in ("ram", "gpu")],
    ),
    (LoaderJob(), lambda text: [*STATE, *text.splitlines(), "running", "0", "0"]),
    (FetchJob(), lambda text: [*STATE, text.replace("\n", " "), text.replace("\n", " ")]),
    (LoggedJob(), lambda text: [*STATE, *text.splitlines()]),
    (FailedJobs(), str.splitlines),
    (DifyPending(), str.splitlines),
    (DifyKeyPrints(), str.splitlines),
    (DockerInfo(), str.splitlines),
    (FileHead(), str.splitlines),
    (GpuMemories(), lambda text: [text, f"0, GPU-a, {text}", f"{text}, GPU-a, 5"]),
    (FileSize(), str.splitlines),
]

NUMBERS = st.one_of(st.integers(-2, 200), st.sampled_from([2**31, 2**32, 2**63, 2**64, 10**400]))
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), NUMBERS, st.floats(), st.text(max_size=8),
        st.sampled_from(["\ud800", "../../x:1", "sha256:x", "a:1\n", "9" * 5_000]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


def _places(value: Any) -> list[tuple[Any, ...]]:
    """The way to each part of a value, itself included."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [(), *((key, *rest) for key, part in items for rest in _places(part))]


def _replaced(value: Any, way: tuple[Any, ...], part: Any) -> Any:
    if not way:
        return part
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = _replaced(value[way[0]], way[1:], part)
    return copy


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """A good value, of which one or two parts are anything."""
    value = GOOD[draw(st.sampled_from(sorted(GOOD)))]
    for _ in range(draw(st.integers(1, 2))):
        value = _replaced(value, draw(st.sampled_from(_places(value))), draw(VALUES))
    return value


@st.composite
def texts(draw: st.DrawFn) -> str:
    """JSON of a spoilt value, maybe cut or glued to something; or any text."""
    if draw(st.booleans()):
        return draw(
            st.text(max_size=60) | st.sampled_from(["[" * 5_000, '{"a":' * 5_000, "1" * 5_000])
        )
    text = json.dumps(draw(spoilt()))
    start, end = draw(st.integers(0, 3)), draw(st.sampled_from([None, -1, -9]))
    return text[start:end] if draw(st.booleans()) else text


@given(texts())
def test_facts_take_any_answer(text: str) -> None:
    for fact, lines in FACTS:
        fact.process(lines(text))


@given(texts() | st.binary(max_size=60))
def test_manifest_or_none(content: str | bytes) -> None:
    data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    try:
        manifest = Manifest(data)
    except FormError as error:
        str(error).encode()
    else:
        assert manifest.size >= 0
        assert all(digest.startswith("sha256:") for digest in manifest.blobs)


@given(spoilt())
def test_answer_of_the_form_is_read_to_its_end(value: Any) -> None:
    try:
        running, shown = judged(value, RUNNING), judged(value, SHOWN)
    except FormError as error:
        str(error).encode()
        return
    for entry in running.get("models") or []:
        assert is_pinned(entry) in (True, False)
    assert (trained_context(shown) or 1) > 0
    assert load_request("a:1", shown)[0].startswith("/api/")


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """The head of a GGUF file with keys of any size and kind, maybe cut, spoilt, or none at all."""
    if draw(st.integers(0, 4)) == 0:
        return b"GGUF" + draw(st.binary(max_size=80))
    keys = dict(GPT_OSS)
    if draw(st.booleans()):
        keys["gptoss.pooling_type"] = 1
        keys["tokenizer.ggml.tokens"] = ["a", "b"]
    for _ in range(draw(st.integers(0, 3))):
        scalar = (
            st.integers(0, 2**32 - 1)
            | st.integers(0, 64)
            | st.floats(width=32)
            | st.text(max_size=5)
        )
        items = st.integers(0, 9), st.floats(width=32), st.text(max_size=3)
        lists = st.one_of(*(st.lists(item, min_size=1, max_size=26) for item in items))
        keys[draw(st.sampled_from(sorted(keys)))] = draw(scalar | lists)
    head = bytearray(gguf(**{name: _packable(value) for name, value in keys.items()}))
    for _ in range(draw(st.integers(0, 4))):
        head[draw(st.integers(4, len(head) - 1))] = draw(st.sampled_from([0, 9, 255]))
    return bytes(head[: draw(st.sampled_from([len(head), len(head) // 2, HEAD]))])


def _packable(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


@given(heads())
@settings(max_examples=300)
@example(gguf(**GPT_OSS))
def test_head_of_a_file_has_a_shape_or_none(head: bytes) -> None:
    try:
        shape = shape_of(10**9, read_keys(head))
    except ValueError as error:
        str(error).encode()
        return
    for load in (Load(4_096), Load(262_144, 16, "q8_0", 4_096)):
        assert 10**9 <= need(shape, load, 8).total < 2**80
        assert prediction(shape, load) >= 10**9


@pytest.mark.parametrize("path", ["/api/ps", "/api/tags", "/api/show", "/api/pull"])
@given(text=texts())
@settings(max_examples=12)
def test_loader_ends_with_each_model_ready_or_failed(
    run: Run, ollama: Ollama, path: str, text: str
) -> None:
    ollama.says = {path: text.encode(errors="surrogatepass")}
    run.limits |= {"attempts": 1}
    bad, good = model(ollama, "bad:1", load=True), model(ollama, "good:1")
    run(bad, good)
    assert {entry["phase"] for entry in run.state.values()} <= {"ready", "failed"}
    run.check(bad, good)
    ollama.says = {}
    assert run(bad, good)
    ollama.loaded.clear()


@given(text=texts())
@settings(max_examples=25)
def test_one_bad_manifest_is_one_models_failure(run: Run, ollama: Ollama, text: str) -> None:
    ollama.manifests["/v2/library/bad/manifests/1"] = text.encode(errors="surrogatepass")
    run.limits |= {"attempts": 1}
    good = model(ollama, "good:1", load=True)
    run(model(ollama, "bad:1"), good)
    assert run.state["good:1"]["phase"] == "ready"
    path = ollama.path_of("bad:1")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(errors="surrogatepass"))
    assert run(good)
