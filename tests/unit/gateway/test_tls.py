"""The fleet's own authority: what it issues is trusted by OpenSSL, kept, and renewed in time."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from pydantic import SecretStr

from fleet.gateway import tls
from fleet.kit.errors import FleetError
from fleet.kit.secrets import Making, SecretStore

NAMES = ["edge", "llm.example.com", "10.0.0.2", "fd00::2"]


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    return SecretStore(tmp_path / "prod")


def verify(store: SecretStore, certificate: str, *arguments: str) -> str:
    leaf, ca = store.root / "leaf.pem", store.root / "ca.pem"
    leaf.write_text(certificate)
    ca.write_text(tls.ca_certificate(store, NAMES))
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
    certificate, _ = tls.issued(store, "edge", NAMES, NAMES)
    assert verify(store, certificate, *arguments).strip().endswith(": OK") == good


def test_key_fits(store: SecretStore) -> None:
    certificate, key = tls.issued(store, "edge", NAMES, NAMES)
    tls.check_given(certificate, key)
    pair = store.root / "pair.pem"
    pair.write_text(certificate + key.get_secret_value())
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(pair)


def test_kept_from_deploy_to_deploy(store: SecretStore) -> None:
    first, _ = tls.issued(store, "edge", NAMES, NAMES)
    assert tls.issued(store, "edge", reversed(NAMES), NAMES)[0] == first
    assert tls.ca_certificate(store, NAMES) == tls.ca_certificate(store, NAMES)
    assert {path.stat().st_mode & 0o777 for path in store.root.iterdir()} == {0o600}


def test_other_names_and_a_near_end_renew_it(
    store: SecretStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, key = tls.issued(store, "edge", NAMES, NAMES)
    more = [*NAMES, "new.example.com"]
    second, same = tls.issued(store, "edge", more, more)
    assert second != first
    assert same.get_secret_value() == key.get_secret_value()
    monkeypatch.setattr(tls, "RENEWAL", tls.RENEWAL * 100)
    assert tls.issued(store, "edge", more, more)[0] != second


def test_other_authority_renews_it(store: SecretStore) -> None:
    first, _ = tls.issued(store, "edge", NAMES, NAMES)
    store.path(tls.CA_KEY).unlink()
    with pytest.raises(FleetError, match="restore both from one backup"):
        tls.issued(store, "edge", NAMES, NAMES)
    store.path(tls.CA_CERTIFICATE).unlink()
    assert tls.issued(store, "edge", NAMES, NAMES)[0] != first


class TestConstraints:
    """Whoever steals the authority's key can speak for the fleet, and for nobody else."""

    @pytest.mark.parametrize(
        ("name", "good"),
        [
            ("llm.example.com", True),
            ("edge", True),
            ("10.200.0.7", True),  # whatever private address a gateway has tomorrow
            ("fd12::1", True),
            ("bank.example.org", False),
            ("example.com", False),
            ("other.example.com", False),
            ("8.8.8.8", False),
            ("2001:db8::1", False),
        ],
    )
    def test_what_it_may_speak_for(self, store: SecretStore, name: str, good: bool) -> None:
        certificate, _ = tls.issued(store, "edge", [name], NAMES)
        said = verify(store, certificate)
        assert said.strip().endswith(": OK") == good, said
        assert good or "permitted subtree violation" in said

    @pytest.mark.parametrize("name", ["203.0.113.7", "2001:db8::7", "*.llm.example.org"])
    def test_a_public_address_that_a_gateway_has(self, store: SecretStore, name: str) -> None:
        certificate, _ = tls.issued(store, "edge", [*NAMES, name], [*NAMES, name])
        (store.root / "own.pem").write_text(tls.ca_certificate(store, [*NAMES, name]))
        assert verify(store, certificate, "-CAfile", str(store.root / "own.pem")).endswith("OK\n")

    def test_critical(self, store: SecretStore) -> None:
        """A client that does not know them refuses the authority, instead of trusting it wholly."""
        assert _constraints(tls.ca_certificate(store, NAMES)).critical

    def test_another_name_leaves_those_who_trust_the_former_one(self, store: SecretStore) -> None:
        former = tls.ca_certificate(store, NAMES)
        certificate, _ = tls.issued(store, "edge", NAMES, [*NAMES, "new.example.com"])
        assert tls.ca_certificate(store, NAMES) != former
        (store.root / "former.pem").write_text(former)
        trusting = ("-CAfile", str(store.root / "former.pem"))
        assert verify(store, certificate, *trusting).endswith("OK\n")
        # A name fewer is no reason for another.
        kept = tls.ca_certificate(store, NAMES)
        assert tls.ca_certificate(store, NAMES[1:]) == kept

    def test_authority_of_an_older_version(self, store: SecretStore) -> None:
        """Made anew without anybody's doing: who trusts it goes on to, and what it issued stays."""
        certificate, _ = tls.issued(store, "edge", NAMES, NAMES)
        older = _unlimited(store, "llm-fleet prod authority")
        store.replace(tls.CA_CERTIFICATE, older)
        assert tls.issued(store, "edge", NAMES, NAMES)[0] == certificate
        assert _constraints(tls.ca_certificate(store, NAMES))
        (store.root / "older.pem").write_text(older)
        trusting = ("-CAfile", str(store.root / "older.pem"))
        assert verify(store, certificate, *trusting).endswith("OK\n")

    def test_authority_that_an_operator_has_given_is_left_alone(self, store: SecretStore) -> None:
        tls.ca_certificate(store, NAMES)
        given = _unlimited(store, "Example Corp internal")
        store.replace(tls.CA_CERTIFICATE, given)
        assert tls.ca_certificate(store, NAMES) == given


def _constraints(authority: str) -> x509.Extension[x509.NameConstraints]:
    certificate = x509.load_pem_x509_certificate(authority.encode())
    return certificate.extensions.get_extension_for_class(x509.NameConstraints)


def _unlimited(store: SecretStore, name: str) -> str:
    """An authority without constraints, with the store's own key."""
    (store.root / "key.pem").write_text(store.path(tls.CA_KEY).read_text())
    return subprocess.run(
        ["openssl", "req", "-x509", "-key", store.root / "key.pem", "-days", "3000",
         "-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


class TestReading:
    """Whoever makes nothing gets what the gateways have, or is told."""

    @pytest.fixture
    def reader(self, store: SecretStore) -> SecretStore:
        reader = SecretStore(store.root)
        reader.making = Making.REFUSED
        return reader

    def test_nothing_is_made(self, reader: SecretStore) -> None:
        with pytest.raises(FleetError, match="gateway_ca_key: this store has no such secret"):
            tls.ca_certificate(reader, NAMES)
        with pytest.raises(FleetError, match="deploy first, or copy the store"):
            tls.issued(reader, "edge", NAMES, NAMES)
        assert not reader.root.exists()

    def test_what_is_there_is_given(self, store: SecretStore, reader: SecretStore) -> None:
        made, authority = tls.issued(store, "edge", NAMES, NAMES), tls.ca_certificate(store, NAMES)
        assert tls.issued(reader, "edge", NAMES, NAMES) == made
        assert tls.ca_certificate(reader, NAMES) == authority
        # Clients are to trust the one that there is.
        assert tls.ca_certificate(reader, [*NAMES, "new.example.com"]) == authority

    def test_what_a_deploy_would_make_anew(self, store: SecretStore, reader: SecretStore) -> None:
        tls.issued(store, "edge", NAMES, NAMES)
        before = {path: path.read_text() for path in store.root.iterdir()}
        with pytest.raises(FleetError, match="the next deploy makes another certificate"):
            tls.issued(reader, "edge", NAMES[1:], NAMES)
        assert {path: path.read_text() for path in store.root.iterdir()} == before

    def test_renewal_is_the_next_deploys(
        self, store: SecretStore, reader: SecretStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is good for months yet: `make verify` has a check of its own for the end."""
        made = tls.issued(store, "edge", NAMES, NAMES)
        monkeypatch.setattr(tls, "RENEWAL", tls._LIFE)
        assert tls.issued(reader, "edge", NAMES, NAMES) == made
        assert tls.issued(store, "edge", NAMES, NAMES) != made


class TestClock:
    """The clock of the machine that deploys was ahead, and is right again."""

    @pytest.fixture
    def ahead(self, store: SecretStore, monkeypatch: pytest.MonkeyPatch) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(tls, "_SKEW", -tls.RENEWAL)
            return tls.issued(store, "edge", NAMES, NAMES)[0]

    def test_certificate_of_the_future_is_made_anew(self, store: SecretStore, ahead: str) -> None:
        certificate, _ = tls.issued(store, "edge", NAMES, NAMES)
        assert certificate != ahead
        assert verify(store, certificate).endswith("OK\n")

    def test_given_one_is_refused(self, store: SecretStore, ahead: str) -> None:
        key = SecretStr(store.path("gateway_tls_edge_key").read_text())
        with pytest.raises(FleetError, match=r"begins on \S+ by this machine's clock"):
            tls.check_given(ahead, key)


def test_host_of_a_connector(store: SecretStore) -> None:
    tls.issued(store, "@docker/edge", NAMES, NAMES)
    assert (store.root / "gateway_tls_@docker_edge_key").exists()


def test_given_pair_is_judged(store: SecretStore) -> None:
    certificate, key = tls.issued(store, "edge", NAMES, NAMES)
    _, other = tls.issued(store, "edge2", NAMES, NAMES)
    with pytest.raises(FleetError, match="is not this certificate's"):
        tls.check_given(certificate, other)
    with pytest.raises(FleetError, match="not PEM"):
        tls.check_given("hello", key)
    with pytest.raises(FleetError, match="not PEM"):
        tls.check_given(certificate, SecretStr("hello"))
