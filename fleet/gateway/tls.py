"""The gateway's certificates: of the fleet's own authority, or given by the operator."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import SecretStr

from fleet.kit.errors import FleetError
from fleet.kit.secrets import SecretStore

CA_KEY, CA_CERTIFICATE = "gateway_ca_key", "gateway_ca_certificate"
GIVEN_KEY = "gateway_tls_key"
_CA_LIFE = timedelta(days=3650)
# Where a fleet's hosts may get an address tomorrow: private ones, a provider's, this host's own.
_PRIVATE = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16",
    "127.0.0.0/8", "fc00::/7", "fe80::/10", "::1/128",
)  # fmt: skip
_DNS_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
# No client refuses a private authority's certificate for being this old at most (Apple: 825).
_LIFE = timedelta(days=820)
# Renewed by the first deploy within this time of its end.
RENEWAL = timedelta(days=120)
# A clock that is a little slow shall not see a certificate of the future.
_SKEW = timedelta(hours=1)
_OURS = "llm-fleet "  # how the name of an authority begins that was made here

_Name = x509.DNSName | x509.IPAddress
_Networks = list[IPv4Network | IPv6Network]


def ca_certificate(store: SecretStore, names: Iterable[str]) -> str:
    """The PEM certificate of the fleet's own authority, which is made when there is none.

    It can speak for `names`, which are those of all gateways, and for private addresses: whoever
    trusts it need not fear for other names when its key is stolen. One that is not so limited, or
    to other names, is made anew with the same key: what it has issued stays good, and so does the
    former certificate wherever it is trusted.
    """
    return _pem(_authority(store, names)[1])


def issued(
    store: SecretStore, host: str, names: Iterable[str], all_names: Iterable[str]
) -> tuple[str, SecretStr]:
    """Certificate and key of the gateway `host` for `names` (DNS names and addresses), in PEM.

    Both are kept; a new certificate is made when the names or the authority are others, or when
    the kept one is near its end. The key stays. `all_names` are those of all gateways.
    """
    # pyinfra's connectors are part of some hosts' names: `@docker/edge`.
    secret = f"gateway_tls_{host.replace('/', '_')}"
    key_text = store.text(f"{secret}_key", _new_key)
    key = _load_key(key_text)
    ca_key, ca = _authority(store, all_names)
    wanted = _general_names(names)
    kept = store.read(f"{secret}_certificate")
    if kept is not None:
        certificate = x509.load_pem_x509_certificate(kept.get_secret_value().encode())
        # What will be renewed in time is good enough for whoever renews nothing.
        spare = RENEWAL if store.makes else timedelta(0)
        if _still_good(certificate, ca, key, wanted, spare):
            return _pem(certificate), key_text
    name = f"{secret}_certificate"

    def make() -> str:
        return _pem(_issue(host, key, wanted, ca_key, ca))

    made = store.text(name, make) if kept is None else store.renew(name, make)
    if made is None:
        raise FleetError(
            f"{store.path(name)}: the next deploy makes another certificate (its names, its "
            "authority or its end); deploy first"
        )
    return f"{made.get_secret_value()}\n", key_text


def check_given(certificate: str, key: SecretStr) -> None:
    """Refuse a PEM certificate (with its chain) that `key` does not fit, or that has ended.

    Raises:
        FleetError: what is wrong with it.
    """
    try:
        first = x509.load_pem_x509_certificates(certificate.encode())[0]
        private = serialization.load_pem_private_key(key.get_secret_value().encode(), None)
    except (ValueError, TypeError, IndexError):
        raise FleetError("not PEM, or the key has a passphrase") from None
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    der = serialization.Encoding.DER
    if first.public_key().public_bytes(der, spki) != private.public_key().public_bytes(der, spki):
        raise FleetError(f"the key {GIVEN_KEY} is not this certificate's")
    if first.not_valid_before_utc > datetime.now(UTC):
        raise FleetError(f"begins on {first.not_valid_before_utc:%Y-%m-%d} by this machine's clock")
    if first.not_valid_after_utc < datetime.now(UTC):
        raise FleetError(f"ended on {first.not_valid_after_utc:%Y-%m-%d}")


def _authority(
    store: SecretStore, names: Iterable[str]
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = _load_key(store.text(CA_KEY, _new_key))
    subject = _subject(f"{_OURS}{store.name} authority")
    wanted = _general_names(names)
    text = store.text(CA_CERTIFICATE, lambda: _pem(_self_signed(key, subject, wanted)))
    certificate = x509.load_pem_x509_certificate(text.get_secret_value().encode())
    if certificate.public_key() != key.public_key():
        raise FleetError(
            f"{store.path(CA_CERTIFICATE)} is not the certificate of {store.path(CA_KEY)}; restore "
            "both from one backup, or delete both and have all clients trust the new one"
        )
    if _is_ours(certificate) and not _may_speak_for(certificate, wanted):
        subject = certificate.subject
        made = store.renew(CA_CERTIFICATE, lambda: _pem(_self_signed(key, subject, wanted)))
        # Whoever only reads gets the one that the gateways still have.
        if made is not None:
            certificate = x509.load_pem_x509_certificate(made.get_secret_value().encode())
    return key, certificate


def _is_ours(authority: x509.Certificate) -> bool:
    """Whether it was made here. One that an operator has put into the store is left as it is."""
    names = authority.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ours = any(str(name.value).startswith(_OURS) for name in names)
    return ours and authority.subject == authority.issuer


def _may_speak_for(authority: x509.Certificate, names: list[_Name]) -> bool:
    """Whether it is limited, to no less than `names`, and has a certificate's life to live."""
    now = datetime.now(UTC)
    if not authority.not_valid_before_utc <= now < authority.not_valid_after_utc - _LIFE:
        return False
    try:
        found = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return False
    return set(_constraints(names).permitted_subtrees or ()) <= set(found.permitted_subtrees or ())


def _constraints(names: list[_Name]) -> x509.NameConstraints:
    networks: _Networks = [ip_network(text) for text in _PRIVATE]
    for name in names:
        if isinstance(name, x509.IPAddress):
            address = ip_network(name.value)
            if not any(
                address.version == network.version and address.subnet_of(network)  # type: ignore[arg-type]
                for network in networks
            ):
                networks.append(address)
    domains = {name.value.removeprefix("*.") for name in names if isinstance(name, x509.DNSName)}
    permitted: list[x509.GeneralName] = [x509.DNSName(domain) for domain in sorted(domains)]
    permitted += [x509.IPAddress(network) for network in networks]
    return x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None)


def _self_signed(
    key: ec.EllipticCurvePrivateKey, name: x509.Name, names: list[_Name]
) -> x509.Certificate:
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    return (
        _builder(name, name, key.public_key(), _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(_constraints(names), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _issue(
    host: str,
    key: ec.EllipticCurvePrivateKey,
    names: list[_Name],
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
) -> x509.Certificate:
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _builder(_subject(host), ca.subject, key.public_key(), _LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(issuer_id, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _still_good(
    certificate: x509.Certificate,
    ca: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    names: list[_Name],
    spare: timedelta,
) -> bool:
    """Whether it is for these names, of this authority and key, and has more than `spare` left."""
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return (
        set(extension.value) == set(names)
        and certificate.issuer == ca.subject
        and certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        == x509.AuthorityKeyIdentifier.from_issuer_public_key(
            ca.public_key()  # type: ignore[arg-type]
        )
        and certificate.public_key() == key.public_key()
        # Nor one of the future: this machine's clock was ahead when it was made.
        and certificate.not_valid_before_utc <= datetime.now(UTC)
        and certificate.not_valid_after_utc > datetime.now(UTC) + spare
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _key_usage(**used: bool) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: used.get(name, False) for name in every})


def _subject(name: str) -> x509.Name:
    # A common name has 64 characters at most; clients read the alternative names.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general_names(names: Iterable[str]) -> list[_Name]:
    """What of `names` a certificate can be for: pyinfra's own, as `@docker/edge`, are none."""
    found: list[_Name] = []
    for name in sorted(set(names)):
        try:
            found.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            if _DNS_NAME.fullmatch(name):
                found.append(x509.DNSName(name))
    return found


def _new_key() -> str:
    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )


def _load_key(text: SecretStr) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(text.get_secret_value().encode(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise FleetError("a key of the fleet's own authority is not an elliptic curve key")
    return key


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
