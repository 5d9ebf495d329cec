"""Boxes that only the holder of one private key can open.

An ephemeral key on P-256 agrees with the recipient's (ECDH), HKDF-SHA256 (RFC 5869) makes of that a key for
AES-256-GCM; both public keys and what the box is for are bound in. The scheme is ECIES as in SEC 1, 5.1, with these
parts: HPKE's (RFC 9180) DHKEM without its framing.
"""

from __future__ import annotations

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from llmagentos.core.errors import InvalidInput

_LABEL = b"llmagentos sealed box 1"
_POINT = 65
_NONCE = 12


class CannotOpen(InvalidInput):
    """The box was sealed to another key, for something else, or is damaged."""

    code = "cannot_open"


def seal(recipient: ec.EllipticCurvePublicKey, content: bytes, purpose: str) -> str:
    """`content` for the holder of the private key of `recipient` (P-256) and for `purpose` only, as text."""
    own = ec.generate_private_key(ec.SECP256R1())
    point = _point(own.public_key())
    nonce = os.urandom(_NONCE)
    key = _key(own.exchange(ec.ECDH(), recipient), point, _point(recipient), purpose)
    return base64.urlsafe_b64encode(point + nonce + AESGCM(key).encrypt(nonce, content, None)).decode()


def unseal(key: ec.EllipticCurvePrivateKey, box: str, purpose: str) -> bytes:
    """What `seal` was given. Raises `CannotOpen`."""
    try:
        raw = base64.urlsafe_b64decode(box.encode())
        sender = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw[:_POINT])
        shared = key.exchange(ec.ECDH(), sender)
        nonce, content = raw[_POINT : _POINT + _NONCE], raw[_POINT + _NONCE :]
        opener = AESGCM(_key(shared, raw[:_POINT], _point(key.public_key()), purpose))
        return opener.decrypt(nonce, content, None)
    except (ValueError, binascii.Error, InvalidTag):
        raise CannotOpen("this was sealed to another key, for something else, or is damaged") from None


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def _key(shared: bytes, sender: bytes, recipient: bytes, purpose: str) -> bytes:
    info = b"\0".join((_LABEL, purpose.encode())) + sender + recipient
    return HKDF(hashes.SHA256(), 32, None, info).derive(shared)
