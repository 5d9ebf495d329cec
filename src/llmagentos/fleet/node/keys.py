"""The node's own key: made here, never sent; what it signs proves that this machine is the node.

Key and certificate stand in one file, so that a crash cannot leave a pair that does not fit. Assertions are JWTs
(RFC 7523, ES256) with a number that only grows: it is reserved on disk in blocks, ahead of its use.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from llmagentos.core.errors import ConfigError
from llmagentos.core.files import write_whole
from llmagentos.core.sealing import unseal

AUDIENCE = "llmagentos:node-token"
LIFETIME_S = 60
BLOCK = 64
"""Numbers reserved at once: a full disk is no reason to fall silent."""

PrivateKey = ec.EllipticCurvePrivateKey


def generate() -> PrivateKey:
    """A new key, EC P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def request(key: PrivateKey, name: str) -> str:
    """The certificate request (PKCS #10, PEM) of the node `name`."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def pem(key: PrivateKey, certificate: str) -> bytes:
    """Key and certificate as the file holds them."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.encode()


class Credential:
    """Key and certificate in the file `path`. Raises `ConfigError` when it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = path.read_bytes()
            key = serialization.load_pem_private_key(content, password=None)
            certificate = x509.load_pem_x509_certificate(content)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{path}: the node's key cannot be read: {error}",
                hint="delete the node's state, revoke the node with `llmctl node revoke`, and join again",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ConfigError(f"{path}: key and certificate do not belong together")
        self._key = key
        self.serial = f"{certificate.serial_number:040x}"
        self.issued = certificate.not_valid_before_utc
        self.expires = certificate.not_valid_after_utc

    def due(self, now: float) -> bool:
        """Whether half of its life is over."""
        return now > (self.issued.timestamp() + self.expires.timestamp()) / 2

    def assertion(self, name: str, *, counter: int, place: str, now: float) -> str:
        """What proves to the server at the time `now` (by its clock) that this is the node `name`."""
        claims = {
            "iss": name,
            "sub": name,
            "aud": AUDIENCE,
            "iat": int(now),
            "exp": int(now) + LIFETIME_S,
            "jti": str(counter),
            "place": place,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": self.serial})

    def unseal(self, box: str, purpose: str) -> bytes:
        """What was sealed to this key for `purpose`. Raises `CannotOpen`."""
        return unseal(self._key, box, purpose)

    def left(self, now: float) -> dt.timedelta:
        """How long the certificate still counts; negative once it has expired."""
        return self.expires - dt.datetime.fromtimestamp(now, dt.UTC)


class Counter:
    """Numbers that only grow, over restarts too: the file holds the end of what may have been used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = self._end = self._read()

    def next(self) -> int:
        """The next number. Raises `OSError` when a new block cannot be reserved."""
        if self._last >= self._end:
            write_whole(self._path, b"%d\n" % (self._last + BLOCK))
            self._end = self._last + BLOCK
        self._last += 1
        return self._last

    def _read(self) -> int:
        try:
            return int(self._path.read_text())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self._path}: the counter cannot be read: {error}", hint="revoke the node and join it again"
            ) from None


def place(state: Path) -> str:
    """A digest of this machine, its start and the state directory: copies of a node's state differ in it."""
    found = state.stat()
    parts = [*map(_read, ("/etc/machine-id", "/proc/sys/kernel/random/boot_id")), found.st_dev, found.st_ino]
    if not parts[1]:  # not Linux
        parts.append(os.uname().nodename)
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
