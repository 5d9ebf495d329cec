"""The nodes' CA: what it certifies, and what it refuses."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmagentos.core.errors import ConfigError, InvalidInput
from llmagentos.fleet.node import keys
from llmagentos.security.certificates import CertificateAuthority, thumbprint

NOW = 1_790_000_000.0


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("keys"))


def test_its_key_is_the_owners_alone_and_stays(tmp_path: Path) -> None:
    first = CertificateAuthority(tmp_path)
    assert stat.S_IMODE((tmp_path / "node-ca.key").stat().st_mode) == 0o600
    content = first.path.read_bytes()
    assert CertificateAuthority(tmp_path).path.read_bytes() == content


def test_a_damaged_or_foreign_key_is_told(tmp_path: Path) -> None:
    CertificateAuthority(tmp_path)
    other = tmp_path / "other"
    CertificateAuthority(other)
    (tmp_path / "node-ca.key").write_bytes((other / "node-ca.key").read_bytes())
    with pytest.raises(ConfigError, match="is not the key of"):
        CertificateAuthority(tmp_path)
    (tmp_path / "node-ca.key").write_text("nonsense")
    with pytest.raises(ConfigError, match="cannot be read"):
        CertificateAuthority(tmp_path)


def test_a_certificate_names_the_node_and_is_for_clients_alone(ca: CertificateAuthority) -> None:
    key = keys.generate()
    made = ca.certify(keys.request(key, "somebody-else"), "web1", days=30, now=NOW)
    found = x509.load_pem_x509_certificate(made.pem.encode())
    assert found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "web1", "not what the request says"
    assert found.public_key() == key.public_key()
    assert made.expires - made.issued == 30 * 86_400
    assert made.serial == f"{found.serial_number:040x}"
    assert made.thumbprint == thumbprint(found.public_bytes(serialization.Encoding.DER))
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    issuer = x509.load_pem_x509_certificate(ca.path.read_bytes())
    found.verify_directly_issued_by(issuer)


def test_other_keys_and_requests_signed_by_another_key_are_refused(ca: CertificateAuthority) -> None:
    def request(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        algorithm = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
        return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()

    for key in (ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()):
        with pytest.raises(InvalidInput, match="P-256"):
            ca.certify(request(key), "web1", days=30, now=NOW)
    good = x509.load_pem_x509_csr(request(keys.generate()).encode()).public_bytes(serialization.Encoding.DER)
    damaged = x509.load_der_x509_csr(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(InvalidInput, match="its own key"):
        ca.certify(damaged.public_bytes(serialization.Encoding.PEM).decode(), "web1", days=30, now=NOW)
    with pytest.raises(InvalidInput, match="too long"):
        ca.certify("x" * 10_000, "web1", days=30, now=NOW)


FRAMED = st.binary(max_size=200).map(
    lambda raw: f"-----BEGIN CERTIFICATE REQUEST-----\n{raw.hex()}\n-----END CERTIFICATE REQUEST-----\n"
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(max_size=300), FRAMED))
def test_any_text_that_is_no_request_is_refused(ca: CertificateAuthority, text: str) -> None:
    with pytest.raises(InvalidInput):
        ca.certify(text, "web1", days=30, now=NOW)
