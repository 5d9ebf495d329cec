"""Assertions: only the key of the certificate makes one, for one node, within a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.core.errors import Unauthenticated
from llmagentos.fleet.node import keys
from llmagentos.fleet.node.keys import Credential
from llmagentos.security import assertions
from llmagentos.security.certificates import Certificate, CertificateAuthority

NOW = 1_790_000_000.0


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Credential, Certificate]:
    key = keys.generate()
    made = CertificateAuthority(tmp_path / "ca").certify(keys.request(key, "web1"), "web1", days=30, now=NOW)
    (tmp_path / "credential.pem").write_bytes(keys.pem(key, made.pem))
    return Credential(tmp_path / "credential.pem"), made


def check(token: str, certificate: Certificate, **changes: Any) -> assertions.Assertion:
    given = {"serial": certificate.serial, "node": "web1", "certificate": certificate.pem, "now": NOW} | changes
    return assertions.verify(token, **given)


def test_both_sides_speak_the_same(pair: tuple[Credential, Certificate]) -> None:
    credential, certificate = pair
    token = credential.assertion("web1", counter=7, place="here", now=NOW)
    assert assertions.serial_of(token) == certificate.serial == credential.serial
    assert check(token, certificate) == assertions.Assertion("web1", certificate.serial, 7, "here")
    assert keys.AUDIENCE == assertions.AUDIENCE
    assert keys.LIFETIME_S == assertions.LIFETIME_S


def test_another_key_another_node_and_another_audience_are_refused(
    pair: tuple[Credential, Certificate], tmp_path: Path
) -> None:
    credential, certificate = pair
    token = credential.assertion("web1", counter=1, place="here", now=NOW)
    key = keys.generate()
    other = CertificateAuthority(tmp_path / "ca").certify(keys.request(key, "web1"), "web1", days=30, now=NOW)
    with pytest.raises(Unauthenticated):
        check(token, other)
    with pytest.raises(Unauthenticated):
        check(token, certificate, node="web2")
    claims = jwt.decode(token, options={"verify_signature": False})
    for changed in ({"aud": "else"}, {"sub": "web2"}, {"iss": "web2"}, {"jti": "x"}, {"jti": "0"}, {"place": ""}):
        forged = jwt.encode(claims | changed, key, algorithm="ES256", headers={"kid": other.serial})
        with pytest.raises(Unauthenticated):
            check(forged, other)
    unsigned = jwt.encode(claims, None, algorithm="none", headers={"kid": certificate.serial})
    with pytest.raises(Unauthenticated):
        check(unsigned, certificate)
    keyed = jwt.encode(claims, "x" * 32, algorithm="HS256", headers={"kid": certificate.serial})
    with pytest.raises(Unauthenticated):
        check(keyed, certificate)


@pytest.mark.parametrize("off", [-200.0, 200.0, 86_400.0])
def test_a_clock_that_is_off_is_told_the_time(pair: tuple[Credential, Certificate], off: float) -> None:
    credential, certificate = pair
    token = credential.assertion("web1", counter=1, place="here", now=NOW + off)
    with pytest.raises(assertions.ClockSkew) as caught:
        check(token, certificate)
    assert caught.value.details["time"] == NOW


@given(st.text(max_size=200))
def test_any_text_has_a_serial_or_none(text: str) -> None:
    found = assertions.serial_of(text)
    assert found is None or len(found) == 40
