"""The fleet's own authority: what it issues is trusted by OpenSSL, kept, and renewed in time."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from fleet.gateway import tls
from fleet.kit.errors import FleetError
from fleet.kit.secrets import SecretStore

NAMES = ["edge", "llm.example.com", "10.0.0.2", "fd00::2"]


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "prod")


def verify(store: SecretStore, certificate: str, *arguments: str) -> str:
    leaf, ca = store.root / "leaf.pem", store.root / "ca.pem"
    leaf.write_text(certificate)
    ca.write_text(tls.ca_certificate(store))
    result = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca, *arguments,
         leaf],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    ("arguments", "good"),
    [
        (["-verify_hostname", "llm.example.com"], True),
        (["-verify_ip", "10.0.0.2"], True),
        (["-verify_ip", "fd00::2"], True),
        (["-verify_hostname", "other.example.com"], False),
    ],
)
def test_openssl_trusts_it_for_its_names_only(
    store: SecretStore, arguments: list[str], good: bool
) -> None:
    certificate, _ = tls.issued(store, "edge", NAMES)
    assert verify(store, certificate, *arguments).strip().endswith(": OK") == good


def test_key_fits(store: SecretStore) -> None:
    certificate, key = tls.issued(store, "edge", NAMES)
    tls.check_given(certificate, key)
    pair = store.root / "pair.pem"
    pair.write_text(certificate + key.get_secret_value())
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(pair)


def test_kept_from_deploy_to_deploy(store: SecretStore) -> None:
    assert tls.issued(store, "edge", NAMES)[0] == tls.issued(store, "edge", reversed(NAMES))[0]
    assert tls.ca_certificate(store) == tls.ca_certificate(store)
    assert {path.stat().st_mode & 0o777 for path in store.root.iterdir()} == {0o600}


def test_other_names_and_a_near_end_renew_it(
    store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, key = tls.issued(store, "edge", NAMES)
    second, same = tls.issued(store, "edge", [*NAMES, "new.example.com"])
    assert second != first
    assert same.get_secret_value() == key.get_secret_value()
    monkeypatch.setattr(tls, "RENEWAL", tls.RENEWAL * 100)
    assert tls.issued(store, "edge", [*NAMES, "new.example.com"])[0] != second


def test_other_authority_renews_it(store: SecretStore) -> None:
    first, _ = tls.issued(store, "edge", NAMES)
    store.path(tls.CA_KEY).unlink()
    with pytest.raises(FleetError, match="restore both from one backup"):
        tls.issued(store, "edge", NAMES)
    store.path(tls.CA_CERTIFICATE).unlink()
    assert tls.issued(store, "edge", NAMES)[0] != first


def test_host_of_a_connector(store: SecretStore) -> None:
    tls.issued(store, "@docker/edge", NAMES)
    assert (store.root / "gateway_tls_@docker_edge_key").exists()


def test_given_pair_is_judged(store: SecretStore) -> None:
    certificate, key = tls.issued(store, "edge", NAMES)
    _, other = tls.issued(store, "edge2", NAMES)
    with pytest.raises(FleetError, match="is not this certificate's"):
        tls.check_given(certificate, other)
    with pytest.raises(FleetError, match="not PEM"):
        tls.check_given("hello", key)
    with pytest.raises(FleetError, match="not PEM"):
        tls.check_given(certificate, SecretStr("hello"))
