"""What a gateway's host has that its configuration depends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.gateway.paths import (
    ACME_NAME,
    GATEWAY_CONFIG,
    GATEWAY_DRAINED,
    GATEWAY_SERVED,
    GATEWAY_STATUS_SOCKET,
    GATEWAY_USAGE,
)
from fleet.kit.on_host.outside import FormError, parsed

_NOTE = 200  # characters of who drained a host


class OpensslVersion(FactBase[tuple[int, int]]):
    """Major and minor version of the OpenSSL library that the host's programs use.

    Asked of a bare host too, before anything is installed: of dpkg, as sshd brings the library.
    (0, 0) without one.
    """

    @override
    @staticmethod
    def default() -> tuple[int, int]:
        return (0, 0)

    @override
    def command(self) -> str:
        # The package is libssl3 or, since 64-bit times, libssl3t64; a major version has another.
        shown = "${db:Status-Status} ${source:Upstream-Version}"
        return f"dpkg-query -W -f '{shown}\\n' 'libssl[0-9]*' || true"

    @override
    def process(self, output: list[str]) -> tuple[int, int]:
        state = "installed "
        found = [line.removeprefix(state) for line in output if line.startswith(state)]
        numbers = [version.split(".")[:2] for version in found]
        return max(((int(major), int(minor)) for major, minor in numbers), default=(0, 0))


class DrainedHosts(FactBase[dict[str, str]]):
    """GPU host that `fleet drain` keeps this gateway from sending requests to, to who said so.

    That is as `by alice@desk since 2026-11-30 16:00 UTC`; empty where nobody wrote it down.
    """

    default = dict

    @override
    def command(self) -> StringCommand:
        return StringCommand("cat", QuoteString(GATEWAY_DRAINED), "2>/dev/null || true")

    @override
    def process(self, output: list[str]) -> dict[str, str]:
        lines = sorted(line for line in output if line.strip() and not line.startswith("#"))
        words = [line.split(maxsplit=1) for line in lines]
        return {
            name: "".join(filter(str.isprintable, " ".join(rest)))[:_NOTE] for name, *rest in words
        }


class ServedServers(FactBase[tuple[str, ...] | None]):
    """Servers (`host[/instance]`) that a deploy has found ready; None where no gateway is yet.

    One of before that was kept served every server that its configuration names.
    """

    @override
    def command(self) -> StringCommand:
        named = r"s|^ *location ~ \^/hosts/\(.*\)/(?<admin_path>.*|\1|p"
        return StringCommand(
            "if [ -e", QuoteString(GATEWAY_SERVED), "]; then cat", QuoteString(GATEWAY_SERVED),
            "; elif [ -e", QuoteString(GATEWAY_CONFIG), "]; then echo '# of before'; sed -n",
            QuoteString(named), QuoteString(GATEWAY_CONFIG), r"| sed 's|\\\.|.|g'; fi",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> tuple[str, ...] | None:
        if not output:
            return None
        return tuple(sorted(line for line in output if line and not line.startswith("#")))


class UsageFiles(FactBase[list[str] | None]):
    """The text of what is counted on each of `days`, those without any left out.

    None where a gateway has never counted.
    """

    @override
    def command(self, days: list[str]) -> StringCommand:
        # Its only line that is no JSON, as each file ends with a line feed.
        return StringCommand(
            "[ ! -d", QuoteString(GATEWAY_USAGE), "] || { cd", QuoteString(GATEWAY_USAGE),
            "&& echo '#' && for day in", *(QuoteString(day) for day in days),
            """; do [ ! -e "$day.json" ] || { cat "$day.json" && echo '#'; } || exit 1; done; }""",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> list[str] | None:
        if not output:
            return None
        found: list[list[str]] = [[]]
        for line in output[1:]:
            if line == "#":
                found.append([])
            else:
                found[-1].append(line)
        return ["\n".join(lines) for lines in found[:-1]]


class Nameservers(FactBase[tuple[str, ...]]):
    """The DNS servers of the host, as nginx writes addresses: with brackets around IPv6."""

    default = tuple

    @override
    def command(self) -> StringCommand:
        return StringCommand("cat /etc/resolv.conf 2>/dev/null || true")

    @override
    def process(self, output: list[str]) -> tuple[str, ...]:
        words = [line.split() for line in output]
        named = [item[1] for item in words if len(item) > 1 and item[0] == "nameserver"]
        # One of a link alone is written with that link, which nginx does not know.
        return tuple(f"[{item}]" if ":" in item else item for item in named if "%" not in item)


@dataclass(frozen=True)
class Seen:
    """What a gateway's last look at a server said: whether it is well; None: nobody has looked."""

    well: bool | None
    why: str


_SEEN = [{"name": str, "well?": bool, "why?": str}]


class SeenServers(FactBase[Mapping[str, Seen] | None]):
    """The servers as nginx saw them last, by name; None where it does not say.

    With `patience`, so many seconds are waited until each was looked at.
    """

    @override
    @staticmethod
    def default() -> Mapping[str, Seen] | None:
        return None

    @override
    def command(self, patience: int = 0) -> StringCommand:
        return StringCommand(
            f"curl -fs --noproxy '*' --max-time {patience + 10} --unix-socket",
            GATEWAY_STATUS_SOCKET, f"http://x/servers?wait={patience} || true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> Mapping[str, Seen] | None:
        return seen_servers(output)


def seen_servers(lines: list[str]) -> Mapping[str, Seen] | None:
    """What `SeenServers` prints; None where it is not what nginx says."""
    try:
        found = parsed("".join(lines), _SEEN, "/servers")
    except FormError:
        return None
    return {item["name"]: Seen(item.get("well"), item.get("why") or "") for item in found}


class AcmeNames(FactBase[list[str]]):
    """The names of the certificate that certbot keeps renewed; empty when it has none."""

    default = list

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            "openssl x509 -noout -ext subjectAltName -in",
            QuoteString(f"/etc/letsencrypt/live/{ACME_NAME}/cert.pem"),
            "2>/dev/null || true",
        )

    @override
    def process(self, output: list[str]) -> list[str]:
        words = " ".join(output).replace(",", " ").split()
        return sorted(word.removeprefix("DNS:") for word in words if word.startswith("DNS:"))
