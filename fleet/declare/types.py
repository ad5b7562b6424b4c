"""Types of settings that several capabilities share, each with its name in docs/settings.md.

A type refuses what cannot work with a ValueError that says what is wrong and what to write.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, GetPydanticSchema
from pydantic_core.core_schema import no_info_after_validator_function, str_schema

from fleet.kit.durations import LONGEST, check_duration, seconds

Listen = Literal["loopback", "private"]
MOST = 2**31 - 1  # what every program counts to

AnyAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
AnyNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_SHA256 = re.compile(r"[0-9a-f]{64}")
# What neither a shell, nor systemd, nginx, Compose or a mount option reads in a way of its own.
_ABSOLUTE_PATH = re.compile(r"/[A-Za-z0-9._+@=/-]+")
_URL = re.compile(
    r"https?://[A-Za-z0-9.:@_~\[\]-]+"
    r"(/([A-Za-z0-9._~+@:,=/-]|%[0-9A-Fa-f]{2})*)?(\?[A-Za-z0-9._~+:,=&/-]*)?"
)
_PROJECT_FILE = re.compile("/?[A-Za-z0-9._+@=-]{1,255}(/[A-Za-z0-9._+@=-]{1,255}){0,15}")
_IMAGE_PART = "[a-z0-9]+([._-]+[a-z0-9]+)*"
_LABEL = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?")
# Where a site's own data is: the Filesystem Hierarchy Standard's, then what disks are mounted on.
_CUSTOMARY = (
    "/srv/", "/mnt/", "/media/", "/data", "/disk", "/models", "/nvme", "/pool", "/raid",
    "/scratch", "/ssd", "/storage", "/tank", "/volume",
)  # fmt: skip
_SITE = re.compile(
    "|".join(f"{p}.+" if p.endswith("/") else f"{p}[0-9]*(/.+)?" for p in _CUSTOMARY)
)


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

    `\\d` and `\\w` are ASCII's: no program that reads the text takes the digits of other scripts
    for numbers. `words` say what it is, with an example; the refusal is `not <words>`.
    """

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(f"not {words}")
        return value

    return AfterValidator(check)


def one_line(words: str) -> AfterValidator:
    """A validator of text of any script: printable, without quotes and backslashes.

    `words` say what it is, with an example; the refusal is `not <words>`.
    """

    def check(value: str) -> str:
        if not value.isprintable() or set("\"'\\") & set(value):
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
    if not 1 <= seconds(value) <= LONGEST:
        raise ValueError("not between a second and ten years; there is no 'for ever' here")
    return value


def _read_address(value: str) -> AnyAddress:
    try:
        found = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("not an IP address; write one such as '10.20.0.11'") from None
    if isinstance(found, ipaddress.IPv6Address) and found.scope_id:
        raise ValueError("an address with an interface; only other addresses work everywhere")
    return found


def _read_network(value: str) -> AnyNetwork:
    try:
        host = ipaddress.ip_interface(value)
    except ValueError:
        raise ValueError("not a network: write one such as '10.0.0.0/8'") from None
    if isinstance(host, ipaddress.IPv6Interface) and host.scope_id:
        raise ValueError("a network with an interface; write one such as 'fd00::/8'")
    if host.ip != host.network.network_address:
        raise ValueError(f"host bits are set; write '{host.network}' for the network")
    return host.network


def _from_text(read: Callable[[str], Any]) -> GetPydanticSchema:
    """A value that is declared as text alone, and that `read` makes of it.

    What else Python has for an address (numbers, bytes, tuples) is a mistake in an inventory.
    """
    return GetPydanticSchema(lambda *_: no_info_after_validator_function(read, str_schema()))


def _check_sha256(value: str) -> str:
    # Some tools show `sha256:` before it.
    digits = value.removeprefix("sha256:")
    if not _SHA256.fullmatch(digits):
        raise ValueError("not a SHA-256: 64 lower-case hexadecimal digits")
    return digits


def check_absolute(value: str) -> str:
    """The absolute path `value` in one form: `//srv/./a/` is `/srv/a`.

    Raises:
        ValueError: it is none, or holds what one of its readers would take for something else.
    """
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if not _ABSOLUTE_PATH.fullmatch(value) or ".." in parts or not parts:
        raise ValueError(
            "not an absolute path of letters, digits and '.', '_', '+', '@', '=', '-', without '..'"
        )
    return "/" + "/".join(parts)


def directory_for_data(*own: str) -> AfterValidator:
    """A validator of a directory that a service is given: its owner and mode will be the service's.

    It is one of `own` (below it, where that ends with a slash), or where a site keeps data: what
    belongs to the system is on no list.
    """
    below = tuple(place for place in own if place.endswith("/"))

    def check(value: str) -> str:
        path = check_absolute(value)
        if not (_SITE.fullmatch(path) or path in own or path.startswith(below)):
            raise ValueError(
                f"{path} is no place for a service's data: the service would own it. Use a "
                f"directory of its own under {', '.join((*_CUSTOMARY, *own))}; a disk that is "
                "mounted elsewhere can be linked to from there"
            )
        return path

    return AfterValidator(check)


def check_file_url(value: str) -> str:
    """`value`, when it is the http(s) address of a file.

    Raises:
        ValueError: it is none, or holds a password.
    """
    # The raw text: urlsplit leaves line breaks out, and whoever reads the text does not.
    if not _URL.fullmatch(value):
        raise ValueError(
            "not an http:// or https:// address of a name or an IP address, maybe a port, and a "
            "path of letters, digits and '.', '_', '~', '+', '@', ':', '%20', '-'"
        )
    url = urlsplit(value)
    if url.username is not None or url.password is not None:
        raise ValueError(
            "holds a user or password: it would be readable in the unit; allow the host's address "
            "at the proxy instead"
        )
    _check_authority(url)
    return value


def _check_authority(url: SplitResult) -> None:
    """Raise ValueError when `url` names no host, or no port."""
    name = url.hostname or ""
    if ":" in name or name.replace(".", "").isdecimal():
        _read_address_of_url(name)
    elif not _HOST_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no host name; write one such as mirror.internal")
    if url.port == 0:  # a port above 65535 raises by itself
        raise ValueError("has port 0; ports begin with 1")


def _read_address_of_url(name: str) -> None:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise ValueError(f"{name!r} is no IP address; write one such as 10.20.0.11") from None


def _check_file_source(value: str) -> str:
    if is_http(value):
        return check_file_url(value)
    if not _PROJECT_FILE.fullmatch(value):
        raise ValueError("neither an http(s) address nor a file's path, relative to the project")
    return value


def _check_http_url(value: str) -> str:
    check_file_url(value)
    if "?" in value:
        raise ValueError("has a '?': paths are added to it; write it without")
    return value.rstrip("/")


def _check_origin(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[a-z0-9.-]+(:[0-9]+)?", value):
        raise ValueError("not an origin: write https://chat.example.com, without a path or *")
    return value


def _check_dns_name(value: str) -> str:
    if not re.fullmatch(
        r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?",
        value,
    ):
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
Address = Annotated[AnyAddress, _from_text(_read_address), Words("IP address", "IP addresses")]
Network = Annotated[AnyNetwork, _from_text(_read_network), Words("IP network")]
Sha256 = Annotated[str, AfterValidator(_check_sha256), Words("SHA-256")]
ProjectFile = Annotated[
    str,
    text_form(
        _PROJECT_FILE.pattern,
        "a file's path, relative to the project, such as certificates/llm.pem",
    ),
    Words("path"),
]
FileSource = Annotated[str, AfterValidator(_check_file_source), Words("http(s) address or path")]
BackupDirectory = Annotated[
    str, directory_for_data("/var/backups/"), Words("directory", "directories")
]
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
    one_line("text on one line without quotes and backslashes, such as 10.0.0.0/8"),
    Words("text"),
]
# An entry of a list that commas separate, so none is in it.
NoProxy = Annotated[
    str,
    text_form(
        r"[A-Za-z0-9.*:/\[\]_-]{1,253}",
        "a name, a domain or a network to be reached without the proxy, such as .internal or "
        "10.0.0.0/8",
    ),
    Words("name or network", "names or networks"),
]
DotenvValue = Annotated[
    EnvValue,
    text_form(
        r"([^\s#$]([^#$]*[^\s#$])?)?",
        "text that Compose reads from a .env file as it stands: without '#' and '$', or spaces at "
        "its ends",
    ),
    Words("text"),
]
ImageReference = Annotated[
    str,
    text_form(
        rf"{_IMAGE_PART}(:\d{{1,5}})?(/{_IMAGE_PART})*:\w[\w.-]{{0,127}}@sha256:[0-9a-f]{{64}}",
        "an image with its tag and its digest, such as ollama/ollama:0.32.7@sha256:<64 digits>, "
        "which `docker buildx imagetools inspect IMAGE:TAG` shows",
    ),
    Words("image with its digest", "images with their digests"),
]
Origin = Annotated[str, AfterValidator(_check_origin), Words("origin")]
DnsName = Annotated[str, AfterValidator(_check_dns_name), Words("DNS name")]
EmailAddress = Annotated[
    str,
    text_form(
        r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9.-]{1,253}", "an email address, such as ops@example.com"
    ),
    Words("email address", "email addresses"),
]


def looks_secret(name: str) -> bool:
    """Whether a variable of this name has a value that an inventory is no place for."""
    return re.search("TOKEN|SECRET|PASS|API_?KEY|(^|_)KEYS?$", name) is not None
