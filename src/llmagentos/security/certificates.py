"""The server's own small CA: it certifies the keys of nodes and of nothing else.

EC P-256 with SHA-256 throughout. A node makes its key itself and sends a PKCS #10 request (RFC 2986); the
certificate (RFC 5280) names the node in its subject and in the URI `llmagentos:node:NAME`, and is good for TLS
clients alone. Nodes do not trust this CA for anything: it says nothing about the server.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from llmagentos.core.errors import ConfigError, InvalidInput
from llmagentos.core.files import write_whole

CA_DAYS = 3650
BACKDATED = dt.timedelta(minutes=5)
"""The node's clock may be that much behind."""
MAX_CSR = 8192


@dataclass(frozen=True, slots=True)
class Certificate:
    """A node's certificate. Times are seconds since the epoch; `thumbprint` is the SHA-256 of its DER (RFC 8705)."""

    serial: str
    node: str
    pem: str
    thumbprint: str
    issued: float
    expires: float


class CertificateAuthority:
    """Signs nodes' keys with the key in `directory`, which is made on first use (0600)."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "node-ca.pem"
        """Its certificate: what a TLS server verifies nodes with."""
        key = directory / "node-ca.key"
        if not (key.exists() and self.path.exists()):
            _create(key, self.path)
        self._key, self._certificate = _load(key, self.path)

    def certify(self, csr: str, node: str, *, days: float, now: float) -> Certificate:
        """A certificate of `node` for the key in the PEM `csr`. Raises `InvalidInput` for a request that is none."""
        public = _requested_key(csr)
        begin = dt.datetime.fromtimestamp(now, dt.UTC)
        end = min(begin + dt.timedelta(days=days), self._certificate.not_valid_after_utc)
        signed = (
            x509.CertificateBuilder()
            .subject_name(_name(node))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin - BACKDATED)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"llmagentos:node:{node}")]),
                critical=False,
            )
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return Certificate(
            f"{signed.serial_number:040x}",
            node,
            signed.public_bytes(serialization.Encoding.PEM).decode(),
            thumbprint(signed.public_bytes(serialization.Encoding.DER)),
            begin.timestamp(),
            signed.not_valid_after_utc.timestamp(),
        )


def thumbprint(der: bytes) -> str:
    """The SHA-256 of a certificate's DER, hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def public_key(pem: str) -> ec.EllipticCurvePublicKey:
    """The public key that the certificate `pem`, which is one of ours, stands for."""
    key = x509.load_pem_x509_certificate(pem.encode()).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def _requested_key(csr: str) -> ec.EllipticCurvePublicKey:
    """The key in the request, whose holder has signed it; what else the request says does not count."""
    if len(csr) > MAX_CSR:
        raise InvalidInput(f"a certificate request of {len(csr)} characters is too long: at most {MAX_CSR}")
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise InvalidInput(f"not a certificate request (PKCS #10, PEM): {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("a node's key has to be one of EC P-256")
    if not signed:
        raise InvalidInput("the certificate request is not signed with its own key")
    return key


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _create(key_path: Path, path: Path) -> None:
    """The key goes last: with it both are there."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    serial = x509.random_serial_number()
    name = _name(f"LLMAgentOS nodes {serial % 2**32:08x}")  # names of two servers' CAs differ
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_whole(path, signed.public_bytes(serialization.Encoding.PEM))
    write_whole(
        key_path,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


def _load(key_path: Path, path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    hint = "restore it from a backup; or delete both files, and every node has to join again"
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{key_path.parent}: the nodes' CA cannot be read: {error}", hint=hint) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"{key_path} is not the key of {path}", hint=hint)
    return key, certificate
