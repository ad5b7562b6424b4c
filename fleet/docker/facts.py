"""Docker on a host: its configuration with what is ours in it, and what the daemon says."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.kit.on_host.outside import FormError, parsed


class OwnedText(NamedTuple):
    """A file's text, and the text of the record that says which of its keys are ours."""

    text: str = ""
    record: str = ""


class OwnedFile(FactBase[OwnedText]):
    """The file `path` and its `record`; empty where there is none."""

    _SEPARATOR = "-- record --"

    default = OwnedText

    @override
    def command(self, path: str, record: str) -> StringCommand:
        return StringCommand(
            "cat", QuoteString(path), "2>/dev/null; echo; echo", QuoteString(self._SEPARATOR),
            "; cat", QuoteString(record), "2>/dev/null || true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> OwnedText:
        border = output.index(self._SEPARATOR)
        return OwnedText(
            "\n".join(output[:border]).strip(), "\n".join(output[border + 1 :]).strip()
        )


class DockerInfo(FactBase[dict[str, Any]]):
    """What `docker info` says; empty while the daemon does not run. It is never started by this."""

    default = dict

    @override
    def command(self) -> StringCommand:
        # Docker's socket would start the daemon for whoever asks it.
        return StringCommand(
            "! systemctl is-active --quiet docker.service"
            " || docker info --format '{{json .}}' 2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> dict[str, Any]:
        try:
            info: dict[str, Any] = parsed("\n".join(output) or "{}", {"ServerVersion?": str})
        except FormError:
            return {}
        # A client without a daemon still describes itself.
        return info if info.get("ServerVersion") else {}


class DockerImage(FactBase[bool]):
    """Whether Docker has the image `reference` already; it is never started by this."""

    default = bool

    @override
    def command(self, reference: str) -> StringCommand:
        return StringCommand(
            "! systemctl is-active --quiet docker.service || docker image inspect --format present",
            QuoteString(reference), "2>/dev/null || true",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> bool:
        return "present" in output


class GroupMembers(FactBase[list[str] | None]):
    """Who is in `group` besides those whose own group it is; None when there is no such group."""

    @override
    @staticmethod
    def default() -> list[str] | None:
        return None

    @override
    def command(self, group: str) -> StringCommand:
        return StringCommand("getent group", QuoteString(group), "|| true")

    @override
    def process(self, output: list[str]) -> list[str] | None:
        if not output:
            return None
        return sorted(name for name in output[0].split(":")[3].split(",") if name)
