#!/usr/bin/python3
"""Has the declared models on this host: pulled, whole, created, pruned and in memory.

usage: model_loader.py CONFIG          bring the host to what CONFIG declares
       model_loader.py --check CONFIG  change nothing, print what differs as JSON

Runs on the host in the unit ollama-models.service, as the user that owns the models, so that
neither a lost SSH connection nor a reboot stops a pull of 65 GB. Standard library only. CONFIG is
JSON (`tasks/models.py` writes it); sizes are bytes, rates bytes a second, times seconds:

    {"api": "http://127.0.0.1:11434", "models_dir": "/var/lib/ollama/models",
     "state": ".../state.json", "memory": ".../memory.json", "choice": ".../choice.json",
     "prune": false, "context": null, "limits": {one key for each field of Limits},
     "models": [{"name": "gpt-oss:20b", "source": "mirror:5000/library/gpt-oss:20b",
                 "insecure": true, "digest": null, "base": null, "gguf": null, "sha256": null,
                 "definition": {"system": "...", "template": "...", "parameters": {}},
                 "load": false, "keep_alive": -1, "implied": false}]}

With `others`, a list of {"api": ..., "context": ...}, further Ollamas use the directory: what is
on the disk is provided once, through the first that answers, and what is to be in memory is loaded
into each; one that is down keeps none of the others from it.

The state file holds `finished`, `ok`, and for each model `phase` (waiting, checking, pulling,
verifying, fetching, importing, creating, loading, ready, failed), `completed` and `total`, `rate`,
`left` in seconds, `error` (the last one) and `attempts`. The memory file holds which blobs were
hashed and found right (with their size and times), and which models were created and loaded.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CALL_TIMEOUT = 60  # seconds for a call that answers from memory or disk
LOAD_TIMEOUT = 3600  # a load of 65 GB from a slow disk; Ollama itself gives up a stalled one
API_PATIENCE = 60  # Ollama may be starting beside us
HASH_RATE = 20_000_000  # bytes a second of the slowest disk: how long a check may be silent
ORPHAN_AGE = 86400  # blobs that nothing names stay for a day: they may be a seed under way
RATE_WINDOW = 10  # seconds that a shown rate is an average of
SAVE_EVERY = 0.5
BLOCK = 1 << 20
MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
WEIGHTS_TYPE = "application/vnd.ollama.image.model"

AUTO = "auto:latest"

Model = dict[str, Any]


class ModelError(Exception):
    """Something failed that may go better at the next attempt."""


class StalledError(ModelError):
    """No new byte for too long."""


class TooSlowError(ModelError):
    """The rate fell below the declared one; a fresh connection often is faster."""


class RefusedError(ModelError):
    """Trying again at once would not help; a person, or time, must change something."""


class OutdatedError(Exception):
    """What failed was asked for by a configuration that has been replaced since."""


@dataclass(frozen=True)
class Limits:
    """Bounds of patience and of room."""

    no_progress: float
    slow_rate: float  # 0: never interrupt a slow pull
    slow_window: float
    attempts: int  # in a row, without a new byte
    first_delay: float
    longest_delay: float
    disk_reserve: float


def say(text: str) -> None:
    """One line for the journal."""
    sys.stderr.write(f"{text}\n")


def size_text(count: float) -> str:
    """A number of bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def replace_file(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old or the new file, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def manifest_path(name: str) -> str:
    """Where a full model name's manifest is kept, under `manifests/`."""
    model, tag = name.rsplit(":", 1)
    parts = model.split("/")
    defaults = ["registry.ollama.ai", "library"]
    return "/".join([*defaults[: 3 - len(parts)], *parts, tag])


def manifest_url(source: str, *, insecure: bool) -> str:
    """Where the registry keeps the manifest of `source`."""
    host, namespace, model, tag = manifest_path(source).split("/")
    return f"http{'' if insecure else 's'}://{host}/v2/{namespace}/{model}/manifests/{tag}"


def load_request(name: str, shown: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Path and body of the smallest request that loads a model, by what `/api/show` says of it.

    One that makes embeddings refuses to generate (400), even nothing.
    """
    if "embedding" in shown.get("capabilities", []):
        return "/api/embed", {"model": name, "input": "x"}
    return "/api/generate", {"model": name}


class Api:
    """Ollama on this host."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc

    def call(
        self, path: str, body: Any = None, method: str = "", timeout: float = CALL_TIMEOUT
    ) -> Any:
        """The answer, parsed; None when it is empty."""
        with self._open(path, body, method or ("POST" if body else "GET"), timeout) as (answer, _):
            content = answer.read()
            return json.loads(content) if content else None

    def stream(
        self, path: str, body: Any, timeout: float, checks: float = 0.0
    ) -> Generator[dict[str, Any], None, None]:
        """Each line of the answer, of which none may be longer than `timeout` in coming.

        While Ollama hashes what it fetched it says nothing: then `checks` seconds are added.
        Leaving the loop closes the connection, and so cancels the work.
        """
        with self._open(path, body, "POST", timeout) as (answer, connection):
            for line in answer:
                status = json.loads(line)
                is_checking = str(status.get("status", "")).startswith(("verifying", "parsing"))
                connection.settimeout(timeout + checks if is_checking else timeout)
                yield status

    def send_file(self, path: str, file: Any, length: int, timeout: float) -> None:
        """POST a file's content."""
        headers = {"Content-Length": str(length)}
        with self._open(path, file, "POST", timeout, headers) as (answer, _):
            answer.read()

    @contextlib.contextmanager
    def _open(
        self, path: str, body: Any, method: str, timeout: float, headers: Any = None
    ) -> Iterator[tuple[http.client.HTTPResponse, Any]]:
        # No proxy of the environment is asked: the API is this host's own.
        connection = http.client.HTTPConnection(self.host, timeout=timeout, blocksize=BLOCK)
        data = body if headers else json.dumps(body) if body else None
        try:
            connection.request(method, path, data, {"Connection": "close", **(headers or {})})
            socket = connection.sock
            with connection.getresponse() as answer:
                if answer.status >= 300:
                    text = answer.read().decode(errors="replace").strip()
                    raise ModelError(f"{path}: {answer.status} {text}")
                yield answer, socket
        except http.client.HTTPException as error:
            raise ModelError(f"{path}: the connection ended: {error!r}") from None
        finally:
            connection.close()


class Manifest:
    """A model's manifest as it lies on the disk, or as a registry sent it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.digest = hashlib.sha256(content).hexdigest()
        value = json.loads(content)
        layers = [*value["layers"], *([value["config"]] if value.get("config") else [])]
        self.blobs: dict[str, int] = {layer["digest"]: layer["size"] for layer in layers}
        self.weights = {
            layer["digest"] for layer in value["layers"] if layer["mediaType"] == WEIGHTS_TYPE
        }


class Store:
    """The models directory: manifests and blobs as files, and which blobs were found right."""

    def __init__(self, root: Path, memory: Path) -> None:
        self.root, self.memory_path = root, memory
        self.memory: dict[str, Any] = {"blobs": {}, "models": {}}
        with contextlib.suppress(FileNotFoundError, ValueError):
            self.memory |= json.loads(memory.read_text())

    def remember(self, name: str, **values: Any) -> None:
        """Note something of a model for later runs."""
        self.memory["models"].setdefault(name, {}).update(values)
        self.save()

    def recall(self, name: str, key: str) -> Any:
        """What `remember` noted, or None."""
        return self.memory["models"].get(name, {}).get(key)

    def save(self) -> None:
        """Write the memory."""
        replace_file(self.memory_path, self.memory)

    def manifest(self, name: str) -> Manifest | None:
        """The manifest of a model, or None; one that is no manifest counts as none."""
        try:
            return Manifest((self.root / "manifests" / manifest_path(name)).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
            return None

    def put_manifest(self, name: str, manifest: Manifest | None) -> None:
        """Put back what a pull replaced."""
        path = self.root / "manifests" / manifest_path(name)
        if manifest is None:
            path.unlink(missing_ok=True)
            return
        temporary = path.parent.parent / f".{path.name}.new"
        temporary.write_bytes(manifest.content)
        temporary.replace(path)

    def blob(self, digest: str) -> Path:
        """The file of a blob."""
        return self.root / "blobs" / digest.replace(":", "-")

    def fault(self, digest: str, size: int | None, report: Callable[[int], None] | None) -> str:
        """What is wrong with a blob, or nothing.

        It is hashed unless the memory knows it in this very state. With `report` None it is not
        hashed, and one that is not known is a fault.
        """
        path = self.blob(digest)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return f"{path} is missing"
        if size is not None and stat.st_size != size:
            return f"{path} has {stat.st_size} bytes of {size}"
        known = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        if self.memory["blobs"].get(path.name) == known:
            return ""
        if report is None:
            return f"{path} has not been hashed in this state"
        actual = self.hash(path, report)
        if f"sha256:{actual}" != digest:
            return f"{path} has the SHA-256 {actual}"
        self.memory["blobs"][path.name] = known
        self.save()
        return ""

    @staticmethod
    def hash(path: Path, report: Callable[[int], None]) -> str:
        """SHA-256 of a file; `report` is told of each block's length."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK * 4):
                digest.update(block)
                report(len(block))
        return digest.hexdigest()

    def named_blobs(self) -> set[str]:
        """Every digest that any manifest names. ValueError when one of them cannot be read."""
        named: set[str] = set()
        for path in (self.root / "manifests").glob("*/*/*/*"):
            if path.is_file() and not path.name.startswith("."):
                named |= set(Manifest(path.read_bytes()).blobs)
        return named

    def remove_blob(self, digest: str) -> None:
        """Delete a blob, and what is left of a download of it."""
        path = self.blob(digest)
        path.unlink(missing_ok=True)
        self.memory["blobs"].pop(path.name, None)

    def partial(self, digest: str) -> int:
        """Bytes on disk of a download of this blob that was cut short."""
        try:
            return Path(f"{self.blob(digest)}-partial").stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def check_space(self, need: int, reserve: float) -> None:
        """Refuse what would not fit."""
        free = os.statvfs(self.root)
        available = free.f_bavail * free.f_frsize
        if need and need + reserve > available:
            raise RefusedError(
                f"needs {size_text(need)} and a reserve of {size_text(reserve)}, but "
                f"{size_text(available)} are free in {self.root}: nothing was fetched; make room "
                "there, or move ollama_models_dir"
            )

    def sweep(self) -> None:
        """Remove blobs and partial downloads that nothing names, once they are a day old.

        Ollama would at each start, after an hour, and take partial downloads of declared models
        with them: OLLAMA_NOPRUNE keeps it from that, so it is done here. By the time of the last
        change of the file's status: `cp -p` and `rsync -a` keep older ones.
        """
        try:
            named = {digest.replace(":", "-") for digest in self.named_blobs()}
        except (ValueError, KeyError, TypeError) as error:
            say(f"a manifest cannot be read, so no unused blob is removed: {error!r}")
            return
        old = time.time() - ORPHAN_AGE
        for path in [*(self.root / "blobs").glob("*"), *(self.root / ".llm-fleet").glob("*.part")]:
            with contextlib.suppress(FileNotFoundError):
                if path.name not in named and path.stat().st_ctime < old:
                    say(f"{path}: no model uses it, removed")
                    path.unlink()


class Watch:
    """Judges a transfer by what it has completed at what time."""

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.began = self.moved = now
        self.best = -1
        self.samples: deque[tuple[float, int]] = deque()

    def saw(self, completed: int, total: int, now: float) -> float:
        """The rate, as the average over a few seconds.

        Raises:
            StalledError: nothing new came for too long.
            TooSlowError: the average over the declared window is below the declared rate.
        """
        if completed > self.best:
            self.best, self.moved = completed, now
        if completed < total and now - self.moved >= self.limits.no_progress:
            raise StalledError(
                f"no new byte for {now - self.moved:.0f} s, at {size_text(completed)} of "
                f"{size_text(total)}"
            )
        self.samples.append((now, completed))
        window = max(RATE_WINDOW, self.limits.slow_window)
        while now - self.samples[0][0] > window:
            self.samples.popleft()
        self._refuse_slow(completed, total, now)
        return self._rate(now, RATE_WINDOW)

    def _refuse_slow(self, completed: int, total: int, now: float) -> None:
        window = self.limits.slow_window
        if not self.limits.slow_rate or completed >= total or now - self.began < window:
            return
        rate = self._rate(now, window)
        if rate < self.limits.slow_rate:
            raise TooSlowError(
                f"{size_text(rate)}/s over {window:.0f} s is below "
                f"{size_text(self.limits.slow_rate)}/s, at {size_text(completed)} of "
                f"{size_text(total)}: interrupted, to resume at once"
            )

    def _rate(self, now: float, window: float) -> float:
        first = next(sample for sample in self.samples if now - sample[0] <= window)
        elapsed = now - first[0]
        return max(self.samples[-1][1] - first[1], 0) / elapsed if elapsed > 0 else 0.0


class State:
    """What the deploy shows and the next person reads."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self.path = path
        self.models: dict[str, dict[str, Any]] = {
            name: {
                "phase": "waiting", "completed": 0, "total": 0, "rate": 0, "left": None,
                "error": "", "attempts": 0,
            }
            for name in names
        }  # fmt: skip
        self.about: dict[str, Any] = {"finished": False, "ok": False, "notes": []}
        self._saved = 0.0

    def update(self, name: str, *, now: bool = True, **values: Any) -> None:
        """Change a model's entry; without `now` it may stay off the disk for half a second."""
        entry = self.models[name]
        entry.update(values)
        entry["left"] = (
            round((entry["total"] - entry["completed"]) / entry["rate"]) if entry["rate"] else None
        )
        if now or time.monotonic() - self._saved >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write it down."""
        self._saved = time.monotonic()
        replace_file(self.path, {**self.about, "models": self.models})


class Loader:
    """Brings one host's models to what is declared, and writes down how far it is."""

    def __init__(
        self, config: dict[str, Any], is_outdated: Callable[[], bool] = lambda: False
    ) -> None:
        self.config = config
        self.is_outdated = is_outdated
        self.limits = Limits(**config["limits"])
        self.api = Api(config["api"])
        # Each server, and the context that it gives to models which name none.
        self.servers: list[tuple[Api, int | None]] = [
            (self.api, config["context"]),
            *((Api(item["api"]), item["context"]) for item in config.get("others", [])),
        ]
        self.store = Store(Path(config["models_dir"]), Path(config["memory"]))
        self.models = self._resolve(config["models"])
        self.state = State(Path(config["state"]), [model["name"] for model in self.models])
        self.completed = 0  # of the current model's pull, at its best

    def _resolve(self, declared: list[Model]) -> list[Model]:
        """The models with `auto` replaced by this host's choice, bases first."""
        chosen = ""
        if any(AUTO in (model["name"], model["base"]) for model in declared):
            try:
                chosen = json.loads(Path(self.config["choice"]).read_text())["model"]
            except FileNotFoundError:
                raise RefusedError(
                    "no model was chosen for this host yet; run the deploy"
                ) from None
        models: dict[str, Model] = {}
        for model in sorted(declared, key=lambda model: bool(model["base"])):
            named = dict(model)
            if model["name"] == AUTO:
                source = model["source"].removesuffix(AUTO) + chosen
                named |= {"name": chosen, "source": source}
            if model["base"] == AUTO:
                named["base"] = chosen
            models.setdefault(named["name"], named)
        return list(models.values())

    # What is, compared with what is declared.

    def lacks(self, model: Model, report: Callable[[int], None] | None = None) -> str:
        """Why the model on the disk is not the declared one, or nothing. Without `report` no blob
        is hashed."""
        manifest = self.store.manifest(model["name"])
        if manifest is None:
            return "is not there"
        if model["digest"] and manifest.digest != model["digest"]:
            return f"has the digest {manifest.digest}, declared is {model['digest']}"
        if wrong := self._definition_fault(model, manifest):
            return wrong
        for digest, size in manifest.blobs.items():
            if fault := self.store.fault(digest, size, report):
                return fault
        return ""

    def _definition_fault(self, model: Model, manifest: Manifest) -> str:
        if not (model["base"] or model["gguf"]):
            return ""
        if self.store.recall(model["name"], "definition") != self._definition(model):
            return "was not created from its present definition"
        if self.store.recall(model["name"], "created") != manifest.digest:
            return "was changed by hand since it was created"
        return ""

    def _definition(self, model: Model) -> str:
        """A hash of all that a created model is made from."""
        base = self.store.manifest(model["base"]) if model["base"] else None
        parts = [base.digest if base else model["sha256"], model["definition"]]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def unloaded(self, model: Model) -> str:
        """Why the model is not in memory as declared, at the first server where it is not."""
        for api, context in self.servers if model["load"] else ():
            if lack := self._not_in(api, context, model):
                return f"{lack} at {api.host}" if len(self.servers) > 1 else lack
        return ""

    def _not_in(self, api: Api, default: int | None, model: Model) -> str:
        """Why the model is not in the memory of one server as declared, or nothing.

        Models that share weights and options share a process, which has the name of one of them.
        """
        manifest = self.store.manifest(model["name"])
        for entry in api.call("/api/ps")["models"]:
            other = self.store.manifest(entry["name"])
            if not (manifest and other and manifest.weights & other.weights):
                continue
            context, wanted = entry.get("context_length"), self._context(api, model, default)
            if wanted and context and context != wanted:
                return f"is loaded with a context of {context}, declared is {wanted}"
            pinned = int(entry["expires_at"][:4]) > time.gmtime().tm_year + 10
            if _is_for_ever(model["keep_alive"]) and not pinned:
                return f"is to stay loaded, but expires at {entry['expires_at']}"
            return ""
        # One that may expire is warmed after each start, and not asked for later.
        return "is not loaded" if _is_for_ever(model["keep_alive"]) else ""

    @staticmethod
    def _context(api: Api, model: Model, default: int | None) -> int | None:
        """The context that the model is to be loaded with, when it is declared."""
        wanted = model["definition"]["parameters"].get("num_ctx") or default
        if not wanted:
            return None
        info = api.call("/api/show", {"model": model["name"]}).get("model_info", {})
        trained = [value for key, value in info.items() if key.endswith(".context_length")]
        return int(min([wanted, *trained]))

    def undeclared(self) -> dict[str, dict[str, Any]]:
        """Models of this host that nothing declares: name to `size` and `in_use`."""
        declared = {name for model in self.models for name in (model["name"], model["source"])}
        in_use = {
            entry["name"] for api, _ in self.servers for entry in api.call("/api/ps")["models"]
        }
        return {
            entry["name"]: {"size": entry["size"], "in_use": entry["name"] in in_use}
            for entry in self.api.call("/api/tags")["models"]
            if entry["name"] not in declared
        }

    def check(self) -> dict[str, Any]:
        """What differs, without changing or hashing anything."""
        pending: dict[str, str] = {}
        undeclared: dict[str, dict[str, Any]] = {}
        for model in self.models:
            try:
                reason = self.lacks(model) or self._untried(model) or self.unloaded(model)
            except (ModelError, OSError) as error:
                reason = f"cannot be asked about: {error}"
            if reason:
                pending[model["name"]] = reason
        with contextlib.suppress(ModelError, OSError):  # nothing is listed when nobody answers
            undeclared = self.undeclared()
        surplus = [name for name, entry in undeclared.items() if not entry["in_use"]]
        if self.config["prune"]:
            pending |= dict.fromkeys(surplus, "is not declared, to be removed")
        return {
            "models": [model["name"] for model in self.models],
            "pending": pending,
            "undeclared": undeclared,
        }

    def _untried(self, model: Model) -> str:
        manifest = self.store.manifest(model["name"])
        tried = self.store.recall(model["name"], "tried")
        return "" if manifest and tried == manifest.digest else "has not been loaded once"

    # What is done about it.

    def run(self) -> bool:
        """Work through all models; False if one is still not as declared at the end."""
        self.state.save()
        with self._lock():
            self._wait_for_api()
            for model in self.models:
                self._with_attempts(model, self._provide)
            if all(entry["phase"] != "failed" for entry in self.state.models.values()):
                self._prune()
                self.store.sweep()
        # Last, and in the declared order: what was only tried has not pushed these out.
        for model in self.models:
            if model["load"] and self.state.models[model["name"]]["phase"] != "failed":
                self._with_attempts(model, self._load)
        ok = all(entry["phase"] == "ready" for entry in self.state.models.values())
        self.state.about |= {"finished": True, "ok": ok}
        self.state.save()
        return ok

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One loader at a time in a models directory, however many Ollamas share it."""
        with (self.store.root / ".llm-fleet.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                note = f"another loader is at work in {self.store.root}: waiting for it"
                say(note)
                self.state.about["notes"] = [note]
                self.state.save()
                fcntl.flock(file, fcntl.LOCK_EX)
            self.state.about["notes"] = []
            yield

    def _wait_for_api(self) -> None:
        """Wait for every server, and work through the first that answers."""
        deadline = time.monotonic() + API_PATIENCE
        answering = [api for api, _ in self.servers if self._answers(api, deadline)]
        self.api = answering[0] if answering else self.api

    def _answers(self, api: Api, deadline: float) -> bool:
        while True:
            try:
                api.call("/api/version")
            except (ModelError, OSError) as error:
                if time.monotonic() >= deadline:
                    return False
                if self.is_outdated():
                    raise OutdatedError(f"{api.host}: {error}") from None
                time.sleep(0.5)
            else:
                return True

    def _with_attempts(self, model: Model, work: Callable[[Model], None]) -> None:
        """Try until it is done. Only attempts in a row that brought no new byte are counted."""
        name, fruitless, self.completed = model["name"], 0, 0
        while True:
            before = self.completed
            self.state.update(name, attempts=self.state.models[name]["attempts"] + 1)
            try:
                work(model)
                manifest = self.store.manifest(name)
                size = sum(manifest.blobs.values()) if manifest else 0
                self.state.update(name, phase="ready", error="", rate=0, completed=size, total=size)
                return
            except TooSlowError as error:
                self._failed_attempt(name, str(error))
                continue
            except RefusedError as error:
                self._failed_attempt(name, str(error), phase="failed")
                return
            except (ModelError, OSError, ValueError, KeyError) as error:
                fruitless = 1 if self.completed > before else fruitless + 1
                reason = str(error) if isinstance(error, ModelError) else repr(error)
                reason += f" (attempt {fruitless} of {self.limits.attempts})"
                if self.is_outdated():
                    # A server that is gone, or a model that nobody wants any more.
                    raise OutdatedError(f"{name}: {reason}") from None
            if fruitless >= self.limits.attempts:
                self._failed_attempt(name, reason, phase="failed")
                return
            self._failed_attempt(name, reason)
            delay = self.limits.first_delay * 2 ** (fruitless - 1)
            time.sleep(min(delay, self.limits.longest_delay))

    def _failed_attempt(self, name: str, reason: str, **values: Any) -> None:
        say(f"{name}: {reason}")
        self.state.update(name, error=reason, rate=0, **values)

    def _provide(self, model: Model) -> None:
        name = model["name"]
        if lack := self.lacks(model, self._meter(model, "checking")):
            say(f"{name} {lack}")
            self._discard_faulty_blobs(model)
            replaced = self.store.manifest(name)
            make = self._import if model["gguf"] else self._create if model["base"] else self._pull
            make(model)
            if lack := self.lacks(model, self._meter(model, "verifying")):
                raise ModelError(f"{lack} after all")
            self._drop_unused(replaced)
        if model["source"] != name and self.store.manifest(model["source"]):
            self.api.call("/api/delete", {"model": model["source"]}, "DELETE")
        if not model["load"] and self._untried(model):
            self.state.update(name, phase="loading")
            self._ask(self.api, model)
            self._note_tried(model)

    def _meter(self, model: Model, phase: str) -> Callable[[int], None]:
        """A report for hashing: the phase is shown only when something is hashed."""
        manifest = self.store.manifest(model["name"])
        done, total = 0, sum(manifest.blobs.values()) if manifest else 0
        watch = Watch(Limits(1e9, 0, 0, 1, 0, 0, 0), time.monotonic())

        def report(length: int) -> None:
            nonlocal done
            done += length
            rate = watch.saw(done, total, time.monotonic())
            self.state.update(
                model["name"], now=False, phase=phase, completed=done, total=total, rate=int(rate)
            )

        return report

    def _discard_faulty_blobs(self, model: Model) -> None:
        """Delete what is not what its name says: Ollama takes a blob that is there for a good one.

        Whatever was loaded from it goes too, or it would go on answering from memory.
        """
        manifest = self.store.manifest(model["name"])
        for digest, size in manifest.blobs.items() if manifest else ():
            fault = self.store.fault(digest, size, lambda _: None)
            if not fault or not self.store.blob(digest).exists():
                continue
            self._unload_all_with(digest, fault)
            say(f"{fault}: deleted, to be fetched again")
            self.store.remove_blob(digest)

    def _unload_all_with(self, digest: str, why: str) -> None:
        for api, _ in self.servers:
            try:
                loaded = api.call("/api/ps")["models"]
            except ConnectionRefusedError:  # a server that is down has nothing in memory
                continue
            for entry in loaded:
                other = self.store.manifest(entry["name"])
                if other and digest in other.blobs:
                    say(f"{entry['name']}: unloaded, {why}")
                    api.call("/api/generate", {"model": entry["name"], "keep_alive": 0})

    def _drop_unused(self, replaced: Manifest | None) -> None:
        """Remove what only the replaced manifest named."""
        if replaced:
            for digest in set(replaced.blobs) - self.store.named_blobs():
                self.store.remove_blob(digest)

    @staticmethod
    def _ask(api: Api, model: Model, **values: Any) -> None:
        """Have the model loaded."""
        path, body = load_request(model["name"], api.call("/api/show", {"model": model["name"]}))
        api.call(path, {**body, **values}, timeout=LOAD_TIMEOUT)

    def _load(self, model: Model) -> None:
        always = bool(self._untried(model)) or not _is_for_ever(model["keep_alive"])
        failures = []
        for api, context in self.servers:
            try:
                if always or self._not_in(api, context, model):
                    self.state.update(model["name"], phase="loading")
                    self._ask(api, model, keep_alive=model["keep_alive"])
                    self._note_tried(model)
            except (ModelError, OSError) as error:
                failures.append(f"{api.host}: {error}" if len(self.servers) > 1 else str(error))
        if failures:
            raise ModelError("; ".join(failures))
        if lack := self.unloaded(model):
            raise ModelError(f"{lack}, although it was just loaded: does it fit beside the others?")

    def _note_tried(self, model: Model) -> None:
        if manifest := self.store.manifest(model["name"]):
            self.store.remember(model["name"], tried=manifest.digest)

    # Pull.

    def _pull(self, model: Model) -> None:
        name, source = model["name"], model["source"]
        offered = self._ask_registry(model)
        if offered:
            self._refuse_moved_tag(model, offered)
            missing = {
                digest: size
                for digest, size in offered.blobs.items()
                if not self.store.blob(digest).exists()
            }
            need = sum(missing.values()) - sum(map(self.store.partial, missing))
            self.store.check_space(need, self.limits.disk_reserve)
        before = self.store.manifest(source)
        self._follow_pull(model, sum(offered.blobs.values()) if offered else 0)
        pulled = self.store.manifest(source)
        if model["digest"] and pulled and pulled.digest != model["digest"]:
            self.store.put_manifest(source, before)
            self._refuse_moved_tag(model, pulled)
        if source == name:
            return
        for digest, size in pulled.blobs.items() if pulled else ():
            if fault := self.store.fault(digest, size, self._meter(model, "verifying")):
                self.store.remove_blob(digest)
                raise ModelError(f"{fault} after its pull: deleted, to be fetched again")
        self.api.call("/api/copy", {"source": source, "destination": name})

    def _ask_registry(self, model: Model) -> Manifest | None:
        """The manifest that a pull would bring; None where only Ollama's own key can see it."""
        url = manifest_url(model["source"], insecure=model["insecure"])
        request = urllib.request.Request(url, headers={"Accept": MANIFEST_TYPE})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self.limits.no_progress) as answer:  # noqa: S310
                return Manifest(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    raise RefusedError(
                        f"the registry has no {model['source']} ({url}: 404)"
                    ) from None
                if error.code not in (401, 403):
                    raise ModelError(f"{url}: {error.code} {error.reason}") from None
            if model["digest"]:
                raise RefusedError(
                    f"{url}: {error.code}: the registry shows it to Ollama's own key only, so its "
                    "digest cannot be checked before it replaces what is there; leave digest out"
                ) from None
            return None
        except (urllib.error.URLError, TimeoutError) as error:
            raise ModelError(f"{url}: {getattr(error, 'reason', error)}") from None

    def _refuse_moved_tag(self, model: Model, offered: Manifest) -> None:
        if model["digest"] and offered.digest != model["digest"]:
            raise RefusedError(
                f"the tag has moved: declared is the digest {model['digest']}, the registry has "
                f"{offered.digest}; nothing was replaced. Declare the new digest to accept it"
            )

    def _follow_pull(self, model: Model, total: int) -> None:
        name = model["name"]
        self.state.update(name, phase="pulling", completed=0, total=total, rate=0)
        watch = Watch(self.limits, time.monotonic())
        layers: dict[str, tuple[int, int]] = {}
        status: dict[str, Any] = {}
        request = {"model": model["source"], "insecure": model["insecure"]}
        checks = (total or 1e11) / HASH_RATE
        try:
            # Errors come as a line inside a 200 answer: only the last line tells.
            lines = self.api.stream("/api/pull", request, self.limits.no_progress, checks)
            with contextlib.closing(lines):
                for status in lines:
                    if "digest" in status and "total" in status:
                        layers[status["digest"]] = (status.get("completed", 0), status["total"])
                        self._progress(model, watch, layers, total)
        except TimeoutError:
            raise StalledError(
                f"not a word from Ollama for {self.limits.no_progress:.0f} s"
            ) from None
        if status.get("status") != "success":
            raise ModelError(status.get("error") or f"the pull ended after {status!r}")

    def _progress(
        self, model: Model, watch: Watch, layers: dict[str, tuple[int, int]], total: int
    ) -> None:
        completed = sum(done for done, _ in layers.values())
        total = max(total, sum(size for _, size in layers.values()))
        rate = watch.saw(completed, total, time.monotonic())
        self.completed = max(self.completed, completed)
        self.state.update(
            model["name"], now=False, completed=completed, total=total, rate=int(rate)
        )

    # Create and import.

    def _create(self, model: Model) -> None:
        base = self.store.manifest(model["base"])
        if base is None:
            raise ModelError(f"its base {model['base']} is not there")
        self._make(model, {"from": model["base"]})

    def _make(self, model: Model, origin: dict[str, Any]) -> None:
        name = model["name"]
        self.state.update(name, phase="creating")
        definition = {key: value for key, value in model["definition"].items() if value}
        request = {"model": name, **origin, **definition}
        status: dict[str, Any] = {}
        for line in self.api.stream("/api/create", request, LOAD_TIMEOUT):
            status = line
        if status.get("status") != "success":
            raise ModelError(status.get("error") or f"the creation ended after {status!r}")
        if manifest := self.store.manifest(name):
            definition_hash = self._definition(model)
            self.store.remember(name, definition=definition_hash, created=manifest.digest)

    def _import(self, model: Model) -> None:
        """Hand a GGUF file over to Ollama under its SHA-256, and make a model of it."""
        digest = f"sha256:{model['sha256']}"
        if self.store.fault(digest, None, self._meter(model, "checking")):
            self.store.remove_blob(digest)
            is_local = model["gguf"].startswith("/")
            path = Path(model["gguf"]) if is_local else self._fetch(model)
            self._upload(model, path, digest)
            if not is_local:
                path.unlink()
        self._make(model, {"files": {"model.gguf": digest}})

    def _upload(self, model: Model, path: Path, digest: str) -> None:
        try:
            total = path.stat().st_size
            actual = self.store.hash(path, self._meter(model, "verifying"))
        except OSError as error:
            raise RefusedError(
                f"{path}: {error.strerror} (it is read as the user ollama)"
            ) from None
        if f"sha256:{actual}" != digest:
            if path.parent.name == ".llm-fleet":
                path.unlink()
            raise RefusedError(
                f"{model['gguf']}: the SHA-256 is {actual}, declared is {model['sha256']}: nothing "
                "was imported"
            )
        self.store.check_space(total, self.limits.disk_reserve)
        self.state.update(model["name"], phase="importing", completed=0, total=total)
        with path.open("rb") as file:
            timeout = self.limits.no_progress + total / HASH_RATE
            self.api.send_file(f"/api/blobs/{digest}", file, total, timeout)

    def _fetch(self, model: Model) -> Path:
        """Fetch a GGUF file into the models directory, from where it broke off."""
        part = self.store.root / ".llm-fleet" / f"{model['sha256']}.part"
        part.parent.mkdir(exist_ok=True)
        have = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(model["gguf"], headers={"Range": f"bytes={have}-"})  # noqa: S310
        try:
            answer = urllib.request.urlopen(request, timeout=self.limits.no_progress)  # noqa: S310
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and have:  # it was whole already
                    return part
                kind = RefusedError if error.code in (401, 403, 404, 410) else ModelError
                raise kind(f"{model['gguf']}: {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise ModelError(f"{model['gguf']}: {error.reason}") from None
        with answer:
            have = have if answer.status == 206 else 0
            left = int(answer.headers.get("Content-Length") or 0)
            # Once here, and once as Ollama's blob.
            self.store.check_space(2 * left + have, self.limits.disk_reserve)
            self._receive(model, answer, part, have, have + left)
        return part

    def _receive(self, model: Model, answer: Any, part: Path, have: int, total: int) -> None:
        watch = Watch(self.limits, time.monotonic())
        self.state.update(model["name"], phase="fetching", completed=have, total=total)
        with part.open("r+b" if have else "wb") as file:
            file.seek(have)
            while block := answer.read1(BLOCK):
                file.write(block)
                have += len(block)
                self._progress(model, watch, {"file": (have, total)}, total)
        if have < total:
            raise ModelError(f"{model['gguf']}: cut at {size_text(have)} of {size_text(total)}")

    # Prune.

    def _prune(self) -> None:
        try:
            undeclared = self.undeclared()
        except (ModelError, OSError) as error:
            say(f"a server cannot be asked what it uses, so nothing is removed: {error}")
            return
        for name, entry in undeclared.items():
            if not self.config["prune"]:
                say(f"{name}: is not declared; models_prune = True removes it")
            elif entry["in_use"]:
                say(f"{name}: is not declared, but in use, so it stays")
            else:
                self.api.call("/api/delete", {"model": name}, "DELETE")
                say(f"{name}: was not declared, removed")


def _is_for_ever(keep_alive: Any) -> bool:
    return str(keep_alive).startswith("-")


def main(arguments: list[str]) -> int:
    """Run with the configuration named on the command line; the exit status."""
    *options, path = arguments
    text = Path(path).read_text()
    config = json.loads(text)
    try:
        loader = Loader(config, lambda: Path(path).read_text() != text)
        if options == ["--check"]:
            print(json.dumps(loader.check()))  # noqa: T201
            return 0
        return 0 if loader.run() else 1
    except OutdatedError as error:
        say(f"{error}; the configuration was replaced meanwhile: beginning anew")
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this very program
    except RefusedError as error:
        if options == ["--check"]:
            names = [model["name"] for model in config["models"]]
            pending = dict.fromkeys(names, str(error))
            print(json.dumps({"models": names, "pending": pending, "undeclared": {}}))  # noqa: T201
            return 0
        say(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
