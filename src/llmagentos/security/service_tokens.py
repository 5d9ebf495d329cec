"""Tokens between callers and service instances: JWT (RFC 7519) signed with Ed25519 (RFC 8037).

The server issues one per caller and service, for an hour; an instance verifies it with the server's
public keys (JWKS, RFC 7517) and no round trip. The audience is one service, so that an instance
cannot use what it receives against anybody else.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from llmagentos.core.errors import ConfigError, Unauthenticated
from llmagentos.core.files import write_whole
from llmagentos.security.identity import Identity, Kind

TTL_S = 3600.0
LEEWAY_S = 60.0
"""Clocks of two machines may differ by this much."""
_ALGORITHM = "EdDSA"
_ISSUER = "llmagentos"


def service_audience(service: str) -> str:
    """The audience of calls to `service`."""
    return f"service:{service}"


def module_audience(module: str) -> str:
    """The audience of requests to a module's own pages (/health, /metrics, /openapi.json)."""
    return f"module:{module}"


class ServiceTokenIssuer:
    """Signs tokens with the key in `path`, which is made on first use (0600)."""

    def __init__(self, path: Path) -> None:
        self._key = _load_or_create(path)
        public = json.loads(OKPAlgorithm.to_jwk(self._key.public_key()))
        self._kid = _thumbprint(public)
        self._jwks = {"keys": [{**public, "kid": self._kid, "use": "sig", "alg": _ALGORITHM}]}

    def issue(self, identity: Identity, audience: str, ttl: float = TTL_S) -> str:
        """A token with which `identity` may reach `audience` for `ttl` seconds."""
        now = time.time()
        claims = {"iss": _ISSUER, "sub": str(identity), "aud": audience, "iat": int(now), "exp": int(now + ttl)}
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM, headers={"kid": self._kid})

    def jwks(self) -> dict[str, Any]:
        """The public keys, as a JSON Web Key Set."""
        return self._jwks


class ServiceTokenVerifier:
    """Verifies tokens against a key set; remembers up to `remember` verified ones until they expire."""

    def __init__(self, jwks: dict[str, Any], *, remember: int = 4096) -> None:
        self._keys = {key["kid"]: jwt.PyJWK(key, algorithm=_ALGORITHM) for key in jwks["keys"]}
        self._remember = remember
        self._verified: OrderedDict[tuple[str, str], tuple[Identity, float]] = OrderedDict()

    def verify(self, token: str, audience: str) -> Identity:
        """Who the token stands for. Raises `Unauthenticated` when it is not valid for `audience` now."""
        known = self._verified.get((token, audience))
        if known is not None:
            if time.time() < known[1] + LEEWAY_S:
                return known[0]
            del self._verified[(token, audience)]
        claims = self._decode(token, audience)
        identity = _identity(claims)
        self._verified[(token, audience)] = (identity, float(claims["exp"]))
        if len(self._verified) > self._remember:
            self._verified.popitem(last=False)
        return identity

    def _decode(self, token: str, audience: str) -> dict[str, Any]:
        try:
            key = self._keys[jwt.get_unverified_header(token)["kid"]]
            return jwt.decode(
                token,
                key,
                algorithms=[_ALGORITHM],
                audience=audience,
                issuer=_ISSUER,
                leeway=LEEWAY_S,
                options={"require": ["exp", "aud", "sub", "iss"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the service token has expired", hint="ask the server for a new one") from None
        except (jwt.InvalidTokenError, KeyError, ValueError, TypeError) as error:
            raise Unauthenticated(
                f"not a valid token for {audience}: {type(error).__name__}",
                hint=f"`llmctl token service {audience.partition(':')[2]}` prints one",
            ) from None


def _identity(claims: dict[str, Any]) -> Identity:
    kind, _, subject = str(claims["sub"]).partition(":")
    try:
        return Identity(Kind(kind), subject)
    except ValueError:
        raise Unauthenticated(f"the token names an unknown kind of identity {kind!r}") from None


def _thumbprint(jwk: dict[str, Any]) -> str:
    """RFC 7638, shortened: enough to tell the few keys of one server apart."""
    import hashlib

    canonical = json.dumps({name: jwk[name] for name in ("crv", "kty", "x")}, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _load_or_create(path: Path) -> Ed25519PrivateKey:
    if not path.exists():
        _create(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"{path}: not a readable private key: {error}", hint="restore it or delete it") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: expected an Ed25519 key", hint="delete it: a new one is made at the next start")
    return key


def _create(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_whole(path, pem)
