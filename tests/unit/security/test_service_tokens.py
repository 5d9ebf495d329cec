"""Service tokens: good for one audience, until they expire, with the keys of one server."""

from __future__ import annotations

import time
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.core.errors import ConfigError, Unauthenticated
from llmagentos.security.identity import Identity, Kind
from llmagentos.security.service_tokens import (
    LEEWAY_S,
    ServiceTokenIssuer,
    ServiceTokenVerifier,
    module_audience,
    service_audience,
)

WHO = Identity(Kind.MODULE, "shop")


@pytest.fixture
def issuer(tmp_path: Path) -> ServiceTokenIssuer:
    return ServiceTokenIssuer(tmp_path / "keys" / "service-token.pem")


def test_a_token_opens_its_service_and_no_other(issuer: ServiceTokenIssuer) -> None:
    verifier = ServiceTokenVerifier(issuer.jwks())
    token = issuer.issue(WHO, service_audience("catalogue"))
    for _ in range(2):  # verified, then remembered
        assert verifier.verify(token, service_audience("catalogue")) == WHO
    for other in (service_audience("billing"), module_audience("catalogue"), "catalogue", ""):
        with pytest.raises(Unauthenticated):
            verifier.verify(token, other)


def test_a_remembered_token_still_expires(issuer: ServiceTokenIssuer) -> None:
    verifier = ServiceTokenVerifier(issuer.jwks())
    token = issuer.issue(WHO, "service:s", ttl=2 - LEEWAY_S)
    verifier.verify(token, "service:s")
    end = time.monotonic() + 40

    def verified_again() -> bool:
        try:
            verifier.verify(token, "service:s")
        except Unauthenticated as error:
            assert "expired" in error.message
            return False
        return True

    while verified_again():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_another_servers_token_is_refused(issuer: ServiceTokenIssuer, tmp_path: Path) -> None:
    other = ServiceTokenIssuer(tmp_path / "other.pem")
    with pytest.raises(Unauthenticated):
        ServiceTokenVerifier(issuer.jwks()).verify(other.issue(WHO, "service:s"), "service:s")


def test_the_key_survives_a_restart_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "key.pem"
    token = ServiceTokenIssuer(path).issue(WHO, "service:s")
    assert path.stat().st_mode & 0o777 == 0o600
    assert ServiceTokenVerifier(ServiceTokenIssuer(path).jwks()).verify(token, "service:s") == WHO
    path.write_text("no key")
    with pytest.raises(ConfigError, match=r"key\.pem"):
        ServiceTokenIssuer(path)


def test_what_is_remembered_is_bounded(issuer: ServiceTokenIssuer) -> None:
    verifier = ServiceTokenVerifier(issuer.jwks(), remember=3)
    for number in range(6):
        verifier.verify(issuer.issue(Identity(Kind.VIEWER, f"v{number}"), "service:s"), "service:s")
    assert len(verifier._verified) == 3


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_no_other_algorithm_is_accepted(issuer: ServiceTokenIssuer, algorithm: str) -> None:
    key = issuer.jwks()["keys"][0]
    claims = {"iss": "llmagentos", "sub": "admin:root", "aud": "service:s", "exp": time.time() + 600}
    secret = "" if algorithm == "none" else key["x"] * 2
    forged = jwt.encode(claims, secret, algorithm=algorithm, headers={"kid": key["kid"]})
    with pytest.raises(Unauthenticated):
        ServiceTokenVerifier(issuer.jwks()).verify(forged, "service:s")


@given(text=st.text(max_size=80))
def test_any_text_is_no_token(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    issuer = ServiceTokenIssuer(tmp_path_factory.getbasetemp() / "fuzz.pem")
    with pytest.raises(Unauthenticated):
        ServiceTokenVerifier(issuer.jwks()).verify(text, "service:s")
