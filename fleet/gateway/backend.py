"""A server that is not ours, as it is declared."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fleet.declare.settings import Item
from fleet.declare.types import DnsName, KeyName, ProjectFile, Words, text_form
from fleet.ollama.models import ModelName

LIST = "/v1/models"  # the path that tells which models a server has


_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
)


def _check_backend_address(value: str) -> str:
    found = re.fullmatch(
        r"(https?)://(\[[0-9a-fA-F:.]+\]|[a-z0-9.-]+)(?::([0-9]{1,5}))?",
        value.rstrip("/"),
        re.ASCII,
    )
    if not found or not 1 <= int(found[3] or 1) <= 65535:
        raise ValueError(
            "not the address of a server: write http:// or https://, a name in lower case or an IP "
            "address, and its port, as in https://llm.example.com:8443; paths are the API's own"
        )
    name = found[2].strip("[]")
    try:
        is_bracketed = ipaddress.ip_address(name).version == 6
    except ValueError:
        is_bracketed = False
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no IP address and no DNS name in lower case") from None
    if is_bracketed != found[2].startswith("["):
        raise ValueError(
            "not the address of a server: brackets are for IPv6 alone, and needed there"
        )
    return value.rstrip("/")


def _own_names(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        twice = sorted({item for item in value if value.count(item) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} is named more than once")
        return {item: item for item in value}
    return value


ServersOwnName = Annotated[
    str,
    text_form(
        r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}",
        "a model's name as a server has it, such as openai/gpt-oss-120b",
    ),
    Words("model name of that server", "model names of that server"),
]


class Backend(Item):
    """A server that is not ours, and that the gateways pass requests to."""

    heading = "A backend"
    introduction = (
        "Any server that speaks OpenAI's API, by its address: "
        '`{"name": "vllm-lab", "address": "https://vllm.example.com:8443", "models": '
        '["llama-3.3-70b"], "key": "vllm-lab"}`. Nothing is deployed there.'
    )
    words = Words("backend")

    name: KeyName = Field(
        description="What it is called in logs, usage, `fleet status` and `fleet drain`."
    )
    address: Annotated[str, AfterValidator(_check_backend_address), Words("http(s) address")] = (
        Field(
            description=(
                "Where it is: `https://` or `http://`, a name or an IP address, and the port "
                "(unset: 443 or 80). A name is asked of the gateway's own DNS servers."
            ),
            json_schema_extra={
                "exposes": "`http` sends its key, prompts and answers there in plain text."
            },
        )
    )
    models: Annotated[Mapping[ModelName, ServersOwnName], BeforeValidator(_own_names)] = Field(
        description=(
            "Models that it is asked for, by the names that clients use: a list, or "
            '`{"gpt-4o": "openai/gpt-4o-2024-11-20"}` where it has another name for one.'
        )
    )
    key: KeyName | None = Field(
        None,
        description=(
            "Its key is the secret `gateway_backend_<key>` of the secrets store, and is sent to it "
            "as `Authorization: Bearer`; clients' own keys never are. Unset: none is sent."
        ),
    )
    health: Annotated[
        str,
        text_form(r"/[A-Za-z0-9._~/-]{0,200}", "a path, such as /v1/models"),
        Words("path"),
    ] = Field(
        LIST,
        description=(
            "What it is asked every 5 s, and has to answer with 200. Of `/v1/models` the list "
            "counts too: a model that is not in it gets no requests."
        ),
    )
    surfaces: tuple[Literal["openai", "anthropic"], ...] = Field(
        ("openai",),
        strict=False,
        description="The APIs that it speaks: `openai`, and `anthropic` where it has that as well.",
    )
    ca: ProjectFile | None = Field(
        None,
        description=(
            "PEM file, relative to the project, of the authority that its certificate is verified "
            "with; unset: those that the gateway's distribution trusts."
        ),
    )
    tls_name: DnsName | None = Field(
        None,
        description=(
            "The name that its certificate is for, where `address` has another one, or an IP "
            "address."
        ),
    )

    @model_validator(mode="after")
    def _relations(self) -> Backend:
        if not self.models:
            raise ValueError(f"{self.name}: models is empty, so nobody would ask it; name one")
        if "openai" not in self.surfaces:
            raise ValueError(f"{self.name}: surfaces: {list(self.surfaces)} lacks 'openai'; add it")
        if not self.is_https and (self.ca or self.tls_name):
            raise ValueError(
                f"{self.name}: ca and tls_name are for https, and its address is {self.address}"
            )
        if self.is_https and self.is_number and not self.tls_name:
            raise ValueError(
                f"{self.name}: {self.address} has no name that its certificate could be compared "
                "with; add tls_name, or write the name into the address"
            )
        return self

    @property
    def is_https(self) -> bool:
        """Whether it is called by TLS."""
        return self.address.startswith("https:")

    @property
    def host(self) -> str:
        """The name or IP address in its address, without brackets."""
        return self._parts[0]

    @property
    def port(self) -> int:
        """The port that it is called at."""
        return self._parts[1]

    @property
    def is_number(self) -> bool:
        """Whether its address has an IP address, and no name."""
        return ":" in self.host or self.host.replace(".", "").isdecimal()

    @property
    def _parts(self) -> tuple[str, int]:
        found = urlsplit(self.address)
        return found.hostname or "", found.port or (443 if self.is_https else 80)
