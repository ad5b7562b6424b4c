"""What a gateway's host has that its configuration depends on."""

from __future__ import annotations

from pyinfra.api import FactBase, QuoteString, StringCommand
from typing_extensions import override

from fleet.gateway.paths import ACME_NAME, GATEWAY_DRAINED


class OpensslVersion(FactBase[tuple[int, int]]):
    """Major and minor version of the OpenSSL library that the host's programs use."""

    @override
    @staticmethod
    def default() -> tuple[int, int]:
        return (0, 0)

    @override
    def command(self) -> str:
        return "python3 -c 'import ssl; print(*ssl.OPENSSL_VERSION_INFO[:2])'"

    @override
    def process(self, output: list[str]) -> tuple[int, int]:
        major, minor = output[0].split()
        return int(major), int(minor)


class DrainedHosts(FactBase[list[str]]):
    """GPU hosts that `fleet drain` keeps this gateway from sending requests to."""

    default = list

    @override
    def command(self) -> StringCommand:
        return StringCommand("cat", QuoteString(GATEWAY_DRAINED), "2>/dev/null || true")

    @override
    def process(self, output: list[str]) -> list[str]:
        return sorted(line for line in output if line and not line.startswith("#"))


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
