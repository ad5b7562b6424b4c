"""Settings of weights: which repositories a host has, at which revision, and from where."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fleet.declare.loading import Loading
from fleet.declare.settings import Item
from fleet.declare.types import (
    HttpUrl,
    KeyName,
    NoProxy,
    ProjectFile,
    Words,
    directory_for_data,
    text_form,
)

Source = Literal["huggingface", "modelscope"]
RepositoryName = Annotated[
    str,
    text_form(
        r"([A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,95}",
        "a repository, such as openai/gpt-oss-120b",
    ),
    Words("repository", "repositories"),
]
Revision = Annotated[
    str,
    text_form(
        r"[0-9a-f]{40}",
        "a commit: 40 lower-case hexadecimal digits, as branches and tags move",
    ),
    Words("commit (40 hexadecimal digits)"),
]
Pattern = Annotated[
    str,
    text_form(
        r"[A-Za-z0-9._+@=*?\[\]!/ -]{1,255}",
        "a pattern of paths, such as original/* or *.safetensors",
    ),
    Words("pattern"),
]
WeightsDirectory = Annotated[
    str, directory_for_data("/var/lib/llm-fleet-weights"), Words("directory", "directories")
]


class WeightsDeclaration(Item):
    """A repository's files at a revision."""

    heading = "Weights"
    introduction = """\
Files of a repository at one commit. How to write a lock, and what is done when, is in
[operating/weights.md](operating/weights.md).

```python
weights = [
    {
        "name": "gpt-oss-120b",
        "repository": "openai/gpt-oss-120b",
        "revision": "<40 hexadecimal digits>",
        "include": ["original/*"],
        "lock": "weights/gpt-oss-120b.lock",
    },
]
```"""
    words = Words("weights", "weights")

    name: KeyName = Field(description="What the host calls them; its own.")
    repository: RepositoryName = Field(description="The repository at its source.")
    revision: Revision = Field(
        description="The commit, whole. `fleet weights lock` tells that of a branch."
    )
    include: Annotated[tuple[Pattern, ...], Field(min_length=1)] = Field(
        ("*",),
        strict=False,
        description="Shell patterns of paths in the repository; `*` matches `/` too.",
    )
    exclude: tuple[Pattern, ...] = Field(
        (), strict=False, description="Of these, the paths that are left out."
    )
    lock: ProjectFile = Field(
        description=(
            "The file that `fleet weights lock` writes: size and SHA-256 of each file. Relative to "
            "the project, and committed: what is fetched is believed to be right by it alone."
        )
    )
    source: Source = Field("huggingface", description="Where the repository is.")


class Weights(Loading):
    """Weights that a host keeps as files, for runtimes that read them.

    Ollama's own models are declared in `ollama_models` instead.
    """

    prefix = "weights_"
    unprefixed = frozenset({"weights"})

    weights: tuple[WeightsDeclaration, ...] = Field(
        (), strict=False, description="What the host is to have, each with the keys below."
    )
    dir: WeightsDirectory = Field(
        "/var/lib/llm-fleet-weights",
        description="Where they are: `<dir>/<name>/<revision>`, readable by everybody on the host.",
    )
    endpoint: HttpUrl = Field(
        "https://huggingface.co",
        description="Hugging Face, or a mirror that answers as it does (`HF_ENDPOINT`).",
    )
    modelscope_endpoint: HttpUrl = Field(
        "https://modelscope.cn", description="ModelScope, or a mirror of it."
    )
    token: KeyName | None = Field(
        None,
        description=(
            "For gated repositories: the secret `weights_token_<this name>` of the store is sent "
            "to `weights_endpoint`, and nowhere else."
        ),
    )
    prune: bool = Field(
        False,
        description=(
            "Remove complete weights that are not declared, at the end of a deploy. `False` only "
            "reports them."
        ),
    )
    https_proxy: HttpUrl | None = Field(
        None, description="HTTPS_PROXY of the loader. Must not hold a password."
    )
    no_proxy: tuple[NoProxy, ...] = Field(
        (), strict=False, description="NO_PROXY of the loader; localhost is always added."
    )

    @model_validator(mode="after")
    def _relations(self) -> Weights:
        for name, times in Counter(item.name for item in self.weights).items():
            if times > 1:
                raise ValueError(
                    f"weights: {name!r} is there {times} times; give each its own name"
                )
        if self.no_proxy and not self.https_proxy:
            raise ValueError(
                "weights_no_proxy: there is no proxy to leave out; set weights_https_proxy"
            )
        if self.token and not self.endpoint.startswith("https://"):
            raise ValueError(
                f"weights_token: weights_endpoint = {self.endpoint} would carry it over the "
                "network for everybody to read; use an https:// address, or leave the token out"
            )
        return self
