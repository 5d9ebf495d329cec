"""A box opens with its key, for its purpose, undamaged; and never otherwise."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.core.sealing import CannotOpen, seal, unseal

KEY = ec.generate_private_key(ec.SECP256R1())


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=500), st.text(max_size=30))
def test_a_box_opens_for_its_purpose(content: bytes, purpose: str) -> None:
    box = seal(KEY.public_key(), content, purpose)
    assert unseal(KEY, box, purpose) == content
    assert content == b"" or content not in base64.urlsafe_b64decode(box) or len(content) < 4
    with pytest.raises(CannotOpen):
        unseal(KEY, box, purpose + "x")
    with pytest.raises(CannotOpen):
        unseal(ec.generate_private_key(ec.SECP256R1()), box, purpose)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 500), st.integers(1, 255))
def test_a_damaged_box_does_not_open(position: int, mask: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(seal(KEY.public_key(), b"secret", "x")))
    raw[position % len(raw)] ^= mask
    with pytest.raises(CannotOpen):
        unseal(KEY, base64.urlsafe_b64encode(bytes(raw)).decode(), "x")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_box_or_not(text: str) -> None:
    with pytest.raises(CannotOpen):
        unseal(KEY, text, "x")
