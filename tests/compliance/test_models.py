"""The declared models are there, whole, as declared, in memory where they should be, and answer."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any

import pytest

from fleet.gates import asked as gates
from fleet.gates.fit import need_of
from fleet.kit.facts.files import FileStates
from fleet.kit.facts.units import UnitState
from fleet.kit.loaders import LoaderJob
from fleet.kit.on_host.outside import judged, parsed
from fleet.kit.on_host.registry import MANIFEST, MANIFEST_LIMIT
from fleet.models.choice import choose, resolve
from fleet.models.facts import HostMemory, ModelsState
from fleet.models.files import loader_config, managed_files
from fleet.models.on_host.ollama_protocol import (
    RUNNING,
    SHOWN,
    is_pinned,
    load_request,
    manifest_path,
    trained_context,
)
from fleet.models.paths import LOADER_MEMORY, LOADER_STATE
from fleet.ollama.facts import OllamaModels
from fleet.ollama.models import ModelDeclaration, is_auto, with_bases
from fleet.ollama.paths import LOADER_UNIT
from fleet.ollama.servers import instances_of
from fleet.ollama.settings import Ollama

from .conftest import Server
from .connection import Target
from .outcomes import Record, Say
from .pinned import may_load

_PATIENCE = 900  # seconds; a cold load of a large model is part of a first answer
_QUESTION = "The capital of France is"
# A custom model's own stop words, or chance, may end an answer before its first word.
_PLAIN = {"num_predict": 16, "temperature": 0, "stop": []}


def test_present(gpu_host: Target) -> None:
    """Every declared model is present."""
    present = _tags(gpu_host)
    missing = [name for name in _declared(gpu_host) if name not in present]
    assert missing == [], (
        f"present: {sorted(present)}; run the deploy to pull{gpu_host.journal(LOADER_UNIT)}"
    )


def test_digest(gpu_host: Target, warns: Say, record: Record) -> None:
    """Every model from a registry is pinned by its digest, and has it."""
    declared, present = _declared(gpu_host), _tags(gpu_host)
    for name in declared.keys() & present.keys():
        record("digests", name, present[name].get("digest"))
    pinned = {name: model.digest for name, model in declared.items() if model.digest}
    assert {name: present.get(name, {}).get("digest") for name in pinned} == pinned
    unpinned = [
        name for name, model in declared.items() if not (model.digest or model.sha256 or model.base)
    ]
    if unpinned:
        warns(f"no digest is declared for {', '.join(unpinned)}: whoever moves the tag is followed")


def test_complete(gpu_host: Target) -> None:
    """Every declared model has all its files, at their full size."""
    problems = []
    for name in _declared(gpu_host):
        layers = _layers(gpu_host, name)
        if not layers:
            problems.append(f"{name}: no manifest")
        sizes = _of_each(gpu_host, "stat -c '%%s %%n'", [blob for blob, _ in layers])
        for blob, layer in layers:
            size = sizes.get(blob)
            if size != str(layer["size"]):
                problems.append(f"{name}: {blob} has {size or 'no'} bytes of {layer['size']}")
    assert problems == []


def test_hashes(gpu_host: Target, request: pytest.FixtureRequest, measured: Say) -> None:
    """Every file of the declared models hashes to its name, or is unchanged since it did."""
    everything = request.config.getoption("--all-blobs")
    limit = request.config.getoption("--hash-up-to") * 1_000_000
    blobs = {blob: layer for name in _declared(gpu_host) for blob, layer in _layers(gpu_host, name)}
    text = gpu_host.run("cat %s", LOADER_MEMORY)
    memory = parsed(text, {"blobs": {...: [float]}}, LOADER_MEMORY)["blobs"]
    small = [blob for blob in blobs if everything or blobs[blob]["size"] <= limit]
    large = [blob for blob in blobs if blob not in small]
    found = _of_each(gpu_host, "sha256sum", small)
    problems = [
        f"{blob} has the SHA-256 {found.get(blob)}"
        for blob in small
        if f"sha256:{found.get(blob)}" != blobs[blob]["digest"]
    ]
    problems += [
        f"{blob} was changed since the loader hashed it"
        for blob in large
        if not _is_unchanged(gpu_host, blob, memory)
    ]
    hashed = sum(blobs[blob]["size"] for blob in small)
    total = sum(layer["size"] for layer in blobs.values())
    measured(f"{hashed / 1e9:.1f} of {total / 1e9:.1f} GB hashed")
    assert problems == []


def test_custom(gpu_host: Target) -> None:
    """Every custom model has exactly the declared parameters, system prompt and template."""
    problems = {}
    custom = {name: model for name, model in _declared(gpu_host).items() if model.base}
    if not custom:
        pytest.skip("no custom model is declared")
    for name, model in custom.items():
        own, base = (_show(gpu_host, item) for item in (name, _resolved(gpu_host, str(model.base))))
        declared = {key: _as_set(value) for key, value in model.definition["parameters"].items()}
        wanted = {
            "parameters": _parameters(base) | declared,
            "system": model.system or base.get("system"),
            "template": model.template or base.get("template"),
        }
        actual = {**{key: own.get(key) for key in wanted}, "parameters": _parameters(own)}
        if actual != wanted:
            problems[name] = {"declared": wanted, "actual": actual}
    assert problems == {}


def test_loaded(instance: Server) -> None:
    """Models that are to stay in memory are there, pinned, and with the declared context."""
    gpu_host, url = instance.target, instance.declared.url
    kept = {name: model for name, model in _served(instance).items() if model.stays_loaded}
    if not kept:
        pytest.skip("no model is declared with load")
    _wait_for_the_loader(gpu_host)
    running = _running(gpu_host, url)
    problems = []
    for name, model in kept.items():
        context = model.parameters.num_ctx or instance.declared.settings.context_length
        trained = trained_context(_show(gpu_host, name)) or context
        entry = running.get(name) or _sharing(gpu_host, name, running)
        if entry is None:
            problems.append(f"{name} is not loaded")
        elif context and entry.get("context_length") != min(context, trained or context):
            problems.append(f"{name} is loaded with a context of {entry.get('context_length')}")
        elif not is_pinned(entry):
            problems.append(f"{name} expires at {entry.get('expires_at')}")
    assert problems == [], f"running: {running}{gpu_host.journal(LOADER_UNIT)}"


def test_answers(instance: Server, measured: Say) -> None:
    """Every declared model answers, asked on its own host."""
    gpu_host, url = instance.target, instance.declared.url
    running = _running(gpu_host, url)
    left_out = _left_out(instance, running)
    asked = [name for name in _served(instance) if name not in left_out]
    slowest = 0.0
    for name in asked:
        began = time.monotonic()
        path, body = load_request(name, _show(gpu_host, name))
        if path == "/api/generate":
            body |= {"prompt": _QUESTION, "stream": False, "options": dict(_PLAIN)}
        # Leave the memory as it was found. A process that is there for the same weights would be
        # started anew for another context, and what was pinned would be gone.
        if entry := _sharing(gpu_host, name, running):
            body.setdefault("options", {})["num_ctx"] = entry.get("context_length")
        else:
            body["keep_alive"] = 0
        answer = _ask(gpu_host, path, body, url)
        text = (answer.get("response") or answer.get("thinking") or "").strip()
        assert text or any(answer.get("embeddings", [])), f"{name}: {answer}"
        slowest = max(slowest, time.monotonic() - began)
    figures = [f"slowest answer after {slowest:.1f} s, a cold load included"] if asked else []
    figures += [f"{', '.join(left_out)} not asked: may push out what is pinned"] if left_out else []
    measured(f"{instance.label}{'; '.join(figures)}")
    if not asked:
        pytest.skip(f"any may push out what is pinned: {sorted(running)}")


def test_loader(gpu_host: Target) -> None:
    """The loader is the declared one, starts with Ollama, and its last run did not fail."""
    files = managed_files(gpu_host.declared)
    states = gpu_host.fact(FileStates, paths=[file.path for file in files])
    assert states == {file.path: file.state for file in files}
    unit = gpu_host.fact(UnitState, unit=LOADER_UNIT, files=[])
    assert unit.is_enabled
    assert not unit.needs_daemon_reload
    run = gpu_host.fact(LoaderJob, unit=LOADER_UNIT, path=LOADER_STATE)
    assert not run.has_failed, gpu_host.journal(LOADER_UNIT)


def test_nothing_is_left_to_do(gpu_host: Target) -> None:
    """The loader finds every model as declared, and no file that none of them uses."""
    _wait_for_the_loader(gpu_host)
    config = json.dumps(loader_config(gpu_host.declared))
    check = gpu_host.fact(ModelsState, config=config)
    assert check.is_known, check.why
    assert check.pending == {}, f"run the deploy{gpu_host.journal(LOADER_UNIT)}"


def _running(target: Target, url: str) -> dict[str, dict[str, Any]]:
    answer = judged(_ask(target, "/api/ps", url=url), RUNNING, "/api/ps")
    return {entry["name"]: entry for entry in answer.get("models") or []}


def _left_out(instance: Server, running: dict[str, dict[str, Any]]) -> list[str]:
    """Declared models that are not in memory, and may push out a pinned one on their way there."""
    host, item = instance.target, instance.declared
    if not any(map(is_pinned, running.values())):
        return []
    cold = [name for name in _served(instance) if not _sharing(host, name, running)]
    if not cold:
        return []
    try:
        budgets = gates.budgets(host.declared, host.fact)
    except gates.UnknownMemoryError:
        return cold
    [own] = [budget for budget in budgets if budget.instance == item]
    beside = sum(
        entry["size"]
        for budget in budgets
        if budget is not own and own.shares_with(budget)
        for entry in _running(host, budget.instance.url).values()
    )
    needs = {
        found.name: need_of(own, found).total
        for found in gates.candidates(host.declared, host.fact)
        if found.shape or found.model.memory
    }
    return [name for name in cold if not may_load(own, needs.get(name), running.values(), beside)]


def _declared(target: Target) -> dict[str, ModelDeclaration]:
    """Full name to declaration: bases that nobody declared too, and `auto` by its choice."""
    return _named(target, target.declared[Ollama])


def _served(instance: Server) -> dict[str, ModelDeclaration]:
    """What one server of a host is for, by full name; the bases, too."""
    return _named(instance.target, instance.declared.settings)


def _named(target: Target, settings: Ollama) -> dict[str, ModelDeclaration]:
    return {_resolved(target, model.name): model for model in with_bases(settings.models)}


def _resolved(target: Target, name: str) -> str:
    choice = choose(target.fact(HostMemory)) if is_auto(name) else None
    resolved = resolve(name, choice)
    assert resolved, "an NVIDIA GPU is on the bus, but nvidia-smi does not answer"
    return resolved


def _tags(target: Target) -> dict[str, dict[str, Any]]:
    tags: dict[str, dict[str, Any]] = target.fact(
        OllamaModels, url=instances_of(target.declared)[0].url
    )
    return tags


def _ask(
    target: Target, path: str, body: dict[str, Any] | None = None, url: str | None = None
) -> dict[str, Any]:
    """Ollama's answer, asked on its host: its port is closed to this machine.

    Of the first server, unless `url` is that of another one: they share what is on the disk.
    """
    url = f"{url or instances_of(target.declared)[0].url}{path}"
    data = ["-d", json.dumps(body)] if body is not None else []
    command = f"curl -sS --noproxy '*' --max-time {_PATIENCE} %s {'%s ' * len(data)}"
    answer: dict[str, Any] = json.loads(target.run(command, url, *data))
    return answer


def _show(target: Target, name: str) -> dict[str, Any]:
    return dict(judged(_ask(target, "/api/show", {"model": name}), SHOWN, "/api/show"))


def _parameters(shown: dict[str, Any]) -> dict[str, set[Any]]:
    """What `/api/show` lists, a value a line."""
    values: dict[str, set[Any]] = {}
    for line in (shown.get("parameters") or "").splitlines():
        key, value = line.split(maxsplit=1)
        values.setdefault(key, set()).add(json.loads(value))
    return values


def _as_set(value: Any) -> set[Any]:
    return set(value) if isinstance(value, list) else {value}


def _of_each(target: Target, command: str, paths: list[str]) -> dict[str, str]:
    """What `command` prints before the name of each of these files that it can read, at once."""
    if not paths:
        return {}
    lines = target.testinfra.run(f"{command} {' '.join(['%s'] * len(paths))}", *paths).stdout
    return {name.strip(): value for value, _, name in (x.partition(" ") for x in lines.split("\n"))}


@cache
def _layers(target: Target, name: str) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Path of each blob of a model, and what its manifest says of it; asked once."""
    directory = target.declared[Ollama].models_dir
    # Of a pipe or an endless file nothing is waited for.
    read = f"[ -f %s ] && timeout 15 head -c {MANIFEST_LIMIT} %s"
    path = manifest_path(directory, name)
    text = target.testinfra.run(read, path, path).stdout
    if not text:
        return ()
    manifest = parsed(text, MANIFEST, name)
    config = [manifest["config"]] if manifest.get("config") else []
    return tuple(
        (f"{directory}/blobs/{layer['digest'].replace(':', '-')}", layer)
        for layer in [*config, *manifest["layers"]]
    )


def _is_unchanged(target: Target, blob: str, memory: dict[str, list[int]]) -> bool:
    """Whether the loader hashed the file in its present state: size and both times."""
    script = "import os,sys;s=os.stat(sys.argv[1]);print(s.st_size,s.st_mtime_ns,s.st_ctime_ns)"
    now = target.testinfra.run("python3 -c %s %s", script, blob).stdout.split()
    return [int(part) for part in now] == memory.get(blob.rsplit("/", 1)[-1])


def _sharing(target: Target, name: str, running: dict[str, Any]) -> dict[str, Any] | None:
    """A loaded model with the same weights: Ollama shows a process that two share once."""
    weights = _weights(target, name)
    return next(
        (entry for other, entry in running.items() if weights == _weights(target, other)), None
    )


def _weights(target: Target, name: str) -> str:
    """Path of a model's largest blob; the name itself while it has none."""
    sizes = [(layer["size"], blob) for blob, layer in _layers(target, name)]
    return max(sizes, default=(0, name))[1]


def _wait_for_the_loader(target: Target) -> None:
    """After a boot it may still be at work; reading on would blame what is under way."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        job = target.fact(LoaderJob, fresh=True, unit=LOADER_UNIT, path=LOADER_STATE)
        if not job.is_running:
            return
        time.sleep(1)
