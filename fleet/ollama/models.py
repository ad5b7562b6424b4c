"""What may be declared of a model: its source, how it differs, and whether it stays loaded.

A plain name is a declaration with a name only. Written as data in the inventory:

    ollama_models = [
        "gpt-oss:20b",
        {"name": "analyst", "base": "gpt-oss:20b", "system": "You are ...",
         "parameters": {"temperature": 0.2}, "load": True},
    ]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    model_validator,
)

from fleet.declare.settings import FROM_NAME, Item
from fleet.declare.types import MOST, Sha256, Words, check_absolute, check_file_url, is_http
from fleet.kit.durations import check_duration, seconds

AUTO = "auto"
FOR_EVER = "-1"

# What Ollama's name parser accepts: [host[:port]/][namespace/]model[:tag].
# Its types/model/name.go: a host stands before a namespace only, and parts have a length.
_MODEL_NAME = re.compile(
    r"(?:[A-Za-z0-9][\w.-]*(?::\d+)?/(?=.*/))?"
    r"(?:\w[\w-]{0,79}/)?\w[\w.-]{0,79}(?::\w[\w.-]{0,79})?",
    re.ASCII,
)
# The hardened units hide these or give them a private copy (ProtectHome, PrivateTmp).
HIDDEN_FROM_UNITS = ("/home", "/root", "/run", "/tmp", "/var/tmp", "/dev", "/proc", "/sys")  # noqa: S108


def hidden_from_units(path: str) -> str | None:
    """The directory that hides `path` from the hardened units, or None."""
    return next((top for top in HIDDEN_FROM_UNITS if f"{path}/".startswith(f"{top}/")), None)


def full_name(model: str) -> str:
    """The name as Ollama lists it: with its tag."""
    return model if ":" in model.rsplit("/", 1)[-1] else f"{model}:latest"


def is_auto(model: str) -> bool:
    """Whether the host chooses what `model` is."""
    return full_name(model) == full_name(AUTO)


def check_model_name(value: str) -> str:
    """`value`, when Ollama's parser would accept it."""
    if len(value) > 255 or not _MODEL_NAME.fullmatch(value):
        raise ValueError("not a model name: write [host/][namespace/]model[:tag]")
    return value


ModelName = Annotated[str, AfterValidator(check_model_name), Words("model name")]


def _check_keep_alive(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and seconds(check_duration(value)) == 0:
        raise ValueError("0 unloads at once; write -1 for ever, or 30m")
    return value


def _check_gguf(value: str) -> str:
    if is_http(value):
        return check_file_url(value)
    if not value.startswith("/"):
        raise ValueError("neither an absolute path on the host nor an http(s) address")
    value = check_absolute(value)
    if hidden := hidden_from_units(value):
        raise ValueError(
            f"is under {hidden}, which the loader's hardened unit cannot see; put the file under "
            "/var, /srv, /data or /mnt"
        )
    return value


def _list_of_texts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Fraction = Annotated[float, Field(ge=0, le=1)]


class ModelParameters(Item):
    """Ollama's PARAMETERs, with the types and bounds that it knows but does not enforce."""

    heading = "The keys"
    introduction = "What is left out is as the base has it."
    words = Words("parameters", "parameters")

    num_ctx: int | None = Field(None, ge=256, le=MOST, description="Context, in tokens.")
    num_predict: int | None = Field(
        None,
        ge=-2,
        le=MOST,
        description="Longest answer in tokens; -1 is no bound, -2 fills the context.",
    )
    num_keep: int | None = Field(
        None, ge=-1, le=MOST, description="Tokens kept when the context is full."
    )
    num_batch: int | None = Field(
        None, ge=1, le=MOST, description="Tokens of a prompt read at once."
    )
    num_gpu: int | None = Field(
        None, ge=-1, le=MOST, description="Layers on the GPU; -1 lets Ollama decide."
    )
    num_thread: int | None = Field(
        None, ge=0, le=MOST, description="CPU threads; 0 lets Ollama decide."
    )
    temperature: float | None = Field(
        None, ge=0, le=10, description="How freely it chooses; 0 always takes the likeliest."
    )
    top_k: int | None = Field(None, ge=0, le=MOST, description="Tokens to choose from.")
    top_p: Fraction | None = Field(None, description="Share of probability to choose from.")
    min_p: Fraction | None = Field(None, description="Least probability, of the likeliest's.")
    typical_p: Fraction | None = Field(None, description="Locally typical sampling; 1 is off.")
    seed: int | None = Field(
        None, ge=-MOST, le=MOST, description="The same seed gives the same answer."
    )
    repeat_last_n: int | None = Field(
        None, ge=-1, le=MOST, description="Tokens looked back for repeats."
    )
    repeat_penalty: float | None = Field(
        None, ge=0, le=10, description="Penalty for repeats; 1 is none."
    )
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="As in OpenAI's API.")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="As in OpenAI's API.")
    draft_num_predict: int | None = Field(None, ge=0, le=MOST, description="Tokens drafted ahead.")
    stop: Annotated[tuple[str, ...] | None, BeforeValidator(_list_of_texts)] = Field(
        None, strict=False, description="Texts that end an answer: one, or a list."
    )

    def declared(self) -> dict[str, Any]:
        """Those that are set, as JSON knows them."""
        values = self.model_dump(exclude_none=True)
        return values | ({"stop": list(values["stop"])} if "stop" in values else {})


class ModelDeclaration(Item):
    """One model that a host serves."""

    heading = "A model"
    introduction = """\
A name alone, or `{"name": ..., ...}` with the keys below. How to add, pin and change models is in
[operating/models.md](operating/models.md).

```python
ollama_models = [
    "gpt-oss:20b",
    {
        "name": "analyst",
        "base": "gpt-oss:20b",
        "system": "You answer in one sentence.",
        "parameters": {"temperature": 0.2},
        "load": True,
    },
]
```"""
    words = Words("model")

    name: ModelName = Field(
        description=(
            "What clients ask for: `gpt-oss:20b`, `hf.co/<user>/<repository>[:<quantization>]`, "
            "`modelscope.cn/<organisation>/<repository>`, or a name of your own with `base` or "
            "`gguf`. `auto` is gpt-oss:120b or gpt-oss:20b, by the memory of the host."
        )
    )
    digest: Sha256 | None = Field(
        None,
        description=(
            "SHA-256 of the manifest in the registry, as `ollama list` and `/api/tags` show it. A "
            "tag that has moved is refused, and what is there stays."
        ),
    )
    base: ModelName | None = Field(
        None,
        description="Makes a custom model of this one. It is pulled too, declared or not.",
    )
    gguf: Annotated[str, AfterValidator(_check_gguf)] | None = Field(
        None,
        description="Imports this file: an absolute path on the host, or an http(s) address.",
    )
    sha256: Sha256 | None = Field(
        None, description="SHA-256 of the `gguf` file, which is imported only if it matches."
    )
    system: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="System prompt of a custom model."
    )
    template: Annotated[str, StringConstraints(min_length=1)] | None = Field(
        None, description="Prompt template of a custom model, in Ollama's Go notation."
    )
    parameters: ModelParameters = Field(
        ModelParameters.model_validate({}), description="Parameters of a custom model, as below."
    )
    memory: Annotated[float, Field(gt=0, le=100_000)] | None = Field(
        None,
        description=(
            "GiB that it takes when it is loaded, context and all; instead of what is reckoned "
            "from its manifest, and for models whose registry does not show theirs."
        ),
    )
    load: bool = Field(
        False,
        description="Load it into memory after each start of Ollama, before anybody asks for it.",
    )
    keep_alive: Annotated[str, BeforeValidator(_check_keep_alive), Words("duration")] | None = (
        Field(
            None,
            description=(
                "How long `load` keeps it there when nobody asks; for ever, `-1`, by default."
            ),
        )
    )

    @classmethod
    def named(cls, name: str) -> ModelDeclaration:
        """The declaration that a plain name stands for."""
        return cls.model_validate({"name": name})

    @model_validator(mode="after")
    def _relations(self) -> ModelDeclaration:
        for broken, message in self._contradictions():
            if broken:
                raise ValueError(message)
        return self

    def _contradictions(self) -> list[tuple[bool, str]]:
        made = bool(self.base or self.gguf)
        own = self.system or self.template or self.parameters.declared()
        return [
            (
                bool(self.base and self.gguf),
                "has base and gguf: import the file as one model, and name that as the base of "
                "another",
            ),
            (bool(self.gguf and not self.sha256), "gguf needs sha256: run sha256sum on the file"),
            (
                bool(self.sha256 and not self.gguf),
                "sha256 is for gguf; a registry's model has digest",
            ),
            (
                bool(self.digest and made),
                "digest is for what a registry has; pin the base, or the gguf by sha256",
            ),
            (
                bool(own and not made),
                f"system, template and parameters need base: write base = {self.name!r} and a name "
                "of its own",
            ),
            (
                bool(self.digest) and is_auto(self.name),
                "auto has no digest; declare the model itself",
            ),
            (made and is_auto(self.name), "auto is chosen, not made; give it a name of its own"),
            (
                self.base is not None and full_name(self.base) == full_name(self.name),
                "is its own base; give the custom model another name",
            ),
            (
                self.keep_alive is not None and not self.load,
                "keep_alive acts on load only, clients send theirs with each request; add "
                "load = True, or set ollama_keep_alive for all models",
            ),
        ]

    @property
    def full_name(self) -> str:
        """The name with its tag."""
        return full_name(self.name)

    @property
    def root(self) -> str:
        """The name of the model that brings the weights."""
        return full_name(self.base) if self.base else self.full_name

    @property
    def stays_loaded(self) -> bool:
        """Whether it is loaded after each start and never unloaded."""
        return self.load and seconds(self.keep_alive or FOR_EVER) < 0

    @property
    def definition(self) -> dict[str, Any]:
        """What makes a custom model differ from its base."""
        return {
            "system": self.system or "",
            "template": self.template or "",
            "parameters": self.parameters.declared(),
        }

    @property
    def served(self) -> tuple[Any, ...]:
        """What a client can tell apart, of models with one name: hosts must not differ in it."""
        base = full_name(self.base).lower() if self.base else None
        return (self.digest, base, self.sha256, str(self.definition))


Model = Annotated[ModelDeclaration, FROM_NAME]


def with_bases(models: tuple[ModelDeclaration, ...]) -> list[ModelDeclaration]:
    """The models, and the bases among them that nobody declared."""
    declared = {model.full_name for model in models}
    bases = {full_name(model.base) for model in models if model.base} - declared
    return [*models, *(ModelDeclaration.named(base) for base in sorted(bases))]


def pull_name(model: str, registry: str | None) -> str:
    """The name to pull `model` under: Ollama has no setting for a mirror, only longer names.

    A model that names its own registry (`hf.co/...`) is pulled from there.
    """
    parts = full_name(model).split("/")
    if registry is None or len(parts) > 2:
        return full_name(model)
    namespace = parts[:-1] or ["library"]
    return "/".join([registry, *namespace, parts[-1]])


def contradictions(
    models: tuple[ModelDeclaration, ...], max_loaded: int, context: int | None
) -> list[str]:
    """What is wrong between the models of one server, a line each, without the key.

    `context` is that of models which declare none, in tokens; None where Ollama chooses it.
    """
    problems = []
    by_name: dict[str, ModelDeclaration] = {}
    for model in models:
        if model.full_name in by_name:
            problems.append(f"{model.full_name} is declared twice; keep one")
        by_name[model.full_name] = model
    for model in models:
        base = by_name.get(full_name(model.base)) if model.base else None
        if base and base.base:
            problems.append(
                f"{model.name}: its base {base.name} is a custom model itself; write "
                f"base = {base.base!r} and repeat what differs"
            )
    loaded = [model for model in models if model.load]
    if 0 < max_loaded < len(loaded):
        names = ", ".join(model.name for model in loaded)
        problems.append(
            f"{names} are to be loaded, but ollama_max_loaded_models = {max_loaded} lets them push "
            "each other out; raise it, or load fewer"
        )
    return [*problems, *_reloads(models, context)]


def _reloads(models: tuple[ModelDeclaration, ...], context: int | None) -> Iterator[str]:
    """Models that would load each other's weights anew, at each request for the other.

    Ollama keeps one process for each file of weights, and starts it anew for other options.
    """
    for place, model in enumerate(models):
        for other in models[:place]:
            if model.root != other.root:
                continue
            mine, theirs = (_runner(item, context) for item in (model, other))
            for name in [name for name in mine if mine[name] != theirs[name]]:
                yield (
                    f"{other.name} ({_shown(name, theirs)}) and {model.name} "
                    f"({_shown(name, mine)}) share the weights of {model.root}, of which Ollama "
                    "holds one process: each request for the one would load them anew for the "
                    f"other; {_same(name, mine, theirs)}, or declare one of them (a base is pulled "
                    "without being declared)"
                )


def _runner(model: ModelDeclaration, context: int | None) -> dict[str, int | None]:
    """What a process is started with for a model; None is Ollama's own choice."""
    declared = model.parameters
    return {
        "num_ctx": context if declared.num_ctx is None else declared.num_ctx,
        "num_batch": declared.num_batch,
        "num_gpu": None if declared.num_gpu == -1 else declared.num_gpu,
        "num_thread": declared.num_thread or None,
        "draft_num_predict": declared.draft_num_predict,
    }


def _shown(name: str, options: dict[str, int | None]) -> str:
    return f"{name} = {options[name] or 'as Ollama chooses'}"


def _same(name: str, mine: dict[str, int | None], theirs: dict[str, int | None]) -> str:
    """How two models get the same value of an option."""
    if name == "num_ctx" and None in (mine[name], theirs[name]):
        return f"write ollama_context_length = {mine[name] or theirs[name]}"
    return f"give them the same {name}"
