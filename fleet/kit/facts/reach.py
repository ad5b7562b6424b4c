"""Whether a host reaches what it is to fetch from, as far as a bare one can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.on_host.outside import counted

_LIMIT = 65_536  # bytes of a list of checksums
# curl's exit statuses, which are its interface (curl(1), EXIT CODES).
_WHY = {
    5: "the proxy's name has no address",
    6: "its name has no address: DNS on the host does not know it",
    7: "it refuses the connection, or there is no way to it",
    28: "it does not answer in time: a firewall on the way may drop packets",
    35: "it does not speak TLS as curl does",
    51: "its certificate is for another name",
    52: "it answers nothing",
    56: "the connection was cut, or the proxy does not lead there",
    60: "its certificate is not trusted on the host",
    97: "the proxy cannot be used",
}


@dataclass(frozen=True)
class Reach:
    """What came of asking: HTTP status (0 without an answer) and, if not, `why`.

    `by_http` is False on a host without curl, which was asked for a connection only.
    """

    status: int = 0
    why: str = ""
    by_http: bool = True


class Reachable(FactBase[Reach]):
    """Whether the host gets an answer at `url`, with the `environment` of who will ask there.

    Without curl, it is tried whether the name has an address and the port takes a connection.
    """

    default = Reach

    @override
    def command(self, url: str, environment: Mapping[str, str]) -> StringCommand:
        parts = urlsplit(environment.get("HTTPS_PROXY") or url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        name = QuoteString(parts.hostname or "")
        return StringCommand(
            "if command -v curl >/dev/null; then",
            _curl("-o /dev/null -I -w '%{http_code}\\n'", url, environment), '; echo "curl $?";',
            "elif ! timeout 8 getent ahosts", name, ">/dev/null; then echo nowhere;",
            "elif timeout 5 bash -c 'exec 3<>\"/dev/tcp/$0/$1\"'", name, f"{port} 2>/dev/null;",
            "then echo taken; else echo refused; fi",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> Reach:
        said = output[-1] if output else ""
        if said == "taken":
            return Reach(by_http=False)
        if said in ("nowhere", "refused"):
            return Reach(why=_WHY[6 if said == "nowhere" else 7], by_http=False)
        code = counted(said.removeprefix("curl "))
        status = (counted(output[-2]) if len(output) > 1 else None) or 0
        # With 22 there is a status, of which whoever asks has an opinion.
        if status or not code:
            return Reach(status, "" if status else "it said nothing")
        return Reach(0, _WHY.get(code, f"curl ends with {code}"))


class SmallFile(FactBase[str]):
    """The beginning of the file at `url`, as the host gets it; empty when it does not."""

    default = str

    @override
    def command(self, url: str, environment: Mapping[str, str]) -> StringCommand:
        return StringCommand(_curl("", url, environment), f"2>/dev/null | head -c {_LIMIT}")

    @override
    def process(self, output: list[str]) -> str:
        return "\n".join(output)


class FreeRoom(FactBase[dict[str, int]]):
    """Bytes that are free where each of `paths` is, or will be; none of what cannot be told."""

    default = dict

    @override
    def command(self, paths: list[str]) -> StringCommand:
        return StringCommand(
            "for p in", *[QuoteString(path) for path in paths],
            '; do d=$p; while [ ! -d "$d" ]; do d=$(dirname "$d"); done;',
            'echo "$(df -B1 --output=avail -- "$d" | tail -n 1) $p"; done',
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> dict[str, int]:
        rows = [line.strip().partition(" ")[::2] for line in output]
        return {path: size for text, path in rows if (size := counted(text)) is not None}


def _curl(options: str, url: str, environment: Mapping[str, str]) -> StringCommand:
    names = [QuoteString(f"{name}={value}") for name, value in environment.items()]
    return StringCommand(
        "env", *names, f"curl -fsSL --connect-timeout 4 --max-time 12 {options}", QuoteString(url)
    )
