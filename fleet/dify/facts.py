"""Dify on a host: its release, what is left to do by its own programs, keys and backups."""

from __future__ import annotations

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.dify.paths import DIFY_CLIENT_CONFIG, DIFY_CLIENT_PROGRAM, DIFY_PRISTINE
from fleet.kit.on_host.outside import FormError, parsed


class DifyRelease(FactBase[str | None]):
    """SHA-256 of the tarball that `version` was unpacked from; None when it is not there."""

    @override
    @staticmethod
    def default() -> None:
        return None

    @override
    def command(self, version: str) -> StringCommand:
        return StringCommand(
            "cat", QuoteString(f"{DIFY_PRISTINE}/{version}/.sha256"), "2>/dev/null || true"
        )

    @override
    def process(self, output: list[str]) -> str | None:
        return output[0] if output else None


class DifyPending(FactBase[list[str]]):
    """What `program check config` on the host would change, and why.

    Not being installed is a reason too, and so is not being able to tell: what then does the work
    says what is wrong.
    """

    default = list

    @override
    def command(self, program: str, config: str) -> StringCommand:
        return StringCommand(
            "if [ -e", QuoteString(program), "] && [ -e", QuoteString(config), "]; then",
            "/usr/bin/python3", QuoteString(program), "check", QuoteString(config),
            "2>/dev/null || true; else echo '{\"pending\": [\"not installed yet\"]}'; fi",
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> list[str]:
        if not output:
            return ["cannot be told"]
        try:
            pending: list[str] = parsed(output[-1], {"pending": [str]}, "the answer")["pending"]
        except FormError as error:
            return [f"cannot be told: {error}"]
        return pending


class DifyKeyPrints(FactBase[dict[str, str]]):
    """Role of a sample app to the SHA-256 of its API key on the host."""

    default = dict

    @override
    def command(self) -> StringCommand:
        return StringCommand(
            "[ ! -e", DIFY_CLIENT_CONFIG, "] ||",
            "/usr/bin/python3", DIFY_CLIENT_PROGRAM, "prints", DIFY_CLIENT_CONFIG,
        )  # fmt: skip

    @override
    def process(self, output: list[str]) -> dict[str, str]:
        try:
            prints: dict[str, str] = parsed("\n".join(output) or "{}", {...: str})
        except FormError:  # none is known, so each is fetched anew
            return {}
        return prints
