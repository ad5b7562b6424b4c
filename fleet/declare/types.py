"""Types of settings that several capabilities share, each with its name in docs/settings.md.

A type refuses what cannot work with a ValueError that says what is wrong and what to write.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    IPvAnyAddress,
    IPvAnyNetwork,
)

from fleet.kit.durations import check_duration, seconds

Listen = Literal["loopback", "private"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Words:
    """What docs/settings.md calls a value of a type; `several` of them where an s is not enough.

    The last of a type's annotations counts, so that a stricter type can have a name of its own.
    """

    one: str
    several: str | None = None

    @property
    def plural(self) -> str:
        """What a list of them is a list of."""
        return self.several or f"{self.one}s"


def is_http(text: str) -> bool:
    """Whether `text` is an http(s) address, of a setting that may be a file's path instead."""
    return text.startswith(("http://", "https://"))


def text_form(pattern: str, words: str) -> AfterValidator:
    """A validator of text, which `pattern` must match as a whole.

    `words` say what it is, with an example; the refusal is `not <words>`.
    """

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"not {words}")
        return value

    return AfterValidator(check)


def not_empty(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """`value`, a list of networks that may call.

    Raises:
        ValueError: it is empty.
    """
    if not value:
        raise ValueError("empty, so nobody could get in; name at least one network")
    return value


def _number_to_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _check_positive(value: str) -> str:
    if seconds(value) < 1:
        raise ValueError("shorter than a second; there is no 'for ever' here")
    return value


def _only_text(value: Any) -> Any:
    # ipaddress takes a number for an address: 17 would be 0.0.0.17.
    if isinstance(value, int):
        raise ValueError("not text: write an address or a network, such as '10.0.0.0/8'")
    return value


def _check_network(value: Any) -> Any:
    if isinstance(value, str):
        try:
            host = ipaddress.ip_interface(value)
        except ValueError:
            raise ValueError("not a network: write one such as '10.0.0.0/8'") from None
        if host.ip != host.network.network_address:
            raise ValueError(f"host bits are set; write '{host.network}' for the network")
    return value


def _check_sha256(value: str) -> str:
    # Some tools show `sha256:` before it.
    digits = value.removeprefix("sha256:")
    if not _SHA256.fullmatch(digits):
        raise ValueError("not a SHA-256: 64 lower-case hexadecimal digits")
    return digits


def _check_absolute(value: str) -> str:
    parts = value.split("/")
    if (
        not value.startswith("/")
        or value == "/"
        or ".." in parts
        or re.search(r"\s|[%\"'\\]", value)
    ):
        raise ValueError("not an absolute path without spaces, quotes, '%' or '..'")
    return value.rstrip("/")


def _check_http_url(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError("not an http:// or https:// address")
    if url.username or url.password:
        raise ValueError(
            "holds a user or password: it would be readable in the unit; allow the host's address "
            "at the proxy instead"
        )
    return value.rstrip("/")


def _check_origin(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9.-]+(:[0-9]+)?", value):
        raise ValueError("not an origin: write https://chat.example.com, without a path or *")
    return value


def _check_dns_name(value: str) -> str:
    if not re.fullmatch(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*", value):
        raise ValueError("not a DNS name in lower case, such as llm.example.com")
    return value


Duration = Annotated[
    str, BeforeValidator(_number_to_text), AfterValidator(check_duration), Words("duration")
]
PositiveDuration = Annotated[
    str,
    BeforeValidator(_number_to_text),
    AfterValidator(_check_positive),
    Words("duration (at least 1s)"),
]
Address = Annotated[IPvAnyAddress, BeforeValidator(_only_text), Words("IP address", "IP addresses")]
Network = Annotated[
    IPvAnyNetwork,
    BeforeValidator(_check_network),
    BeforeValidator(_only_text),
    Words("IP network"),
]
Sha256 = Annotated[str, AfterValidator(_check_sha256), Words("SHA-256")]
AbsolutePath = Annotated[str, AfterValidator(_check_absolute), Words("absolute path")]
HttpUrl = Annotated[
    str, AfterValidator(_check_http_url), Words("http(s) address", "http(s) addresses")
]
Port = Annotated[int, Field(ge=1, le=65535), Words("port")]
KeyName = Annotated[
    str,
    text_form(
        r"[a-z0-9][a-z0-9-]{0,62}",
        "a key name of lower-case letters, digits and '-', such as team-a",
    ),
    Words("key name"),
]
Fingerprint = Annotated[
    str,
    text_form(r"[0-9A-F]{40}", "a fingerprint: 40 hexadecimal digits in capitals, without spaces"),
    Words("key (its 40 capital hexadecimal digits)"),
]
Version = Annotated[
    str,
    text_form(r"\d+\.\d+\.\d+", "a version of three numbers, such as 1.2.3"),
    Words("version (three numbers)"),
]
EnvName = Annotated[
    str,
    text_form(
        r"[A-Z][A-Z0-9_]*",
        "a variable's name of capitals, digits and '_', such as OLLAMA_VULKAN",
    ),
    Words("variable name"),
]
EnvValue = Annotated[
    str,
    text_form(
        r"[^\x00-\x1f\"'\\]*",
        "text on one line without quotes and backslashes, such as 10.0.0.0/8",
    ),
    Words("text"),
]
ImageReference = Annotated[
    str,
    text_form(
        r"[a-z0-9][\w.:/-]*:[\w][\w.-]*@sha256:[0-9a-f]{64}",
        "an image with its tag and its digest, such as ollama/ollama:0.32.7@sha256:<64 digits>, "
        "which `docker buildx imagetools inspect IMAGE:TAG` shows",
    ),
    Words("image with its digest", "images with their digests"),
]
Origin = Annotated[str, AfterValidator(_check_origin), Words("origin")]
DnsName = Annotated[str, AfterValidator(_check_dns_name), Words("DNS name")]
EmailAddress = Annotated[
    str,
    text_form(r"[^@\s\"']+@[^@\s\"']+", "an email address, such as ops@example.com"),
    Words("email address", "email addresses"),
]


def looks_secret(name: str) -> bool:
    """Whether a variable of this name has a value that an inventory is no place for."""
    return re.search("TOKEN|SECRET|PASS|API_?KEY|(^|_)KEYS?$", name) is not None
