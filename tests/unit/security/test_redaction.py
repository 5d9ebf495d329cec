"""Personal data and secrets: found in Chinese and English, put aside and put back, in linear time."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.security.redaction import KINDS, Vault, each_text, find

AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIB8\nabc=\n-----END EC PRIVATE KEY-----"

FOUND = [
    ("Write to ada.lovelace+shop@mail.example.co.uk today.", "email", "ada.lovelace+shop@mail.example.co.uk"),
    ("请发邮件到zhang.san@example.com，谢谢", "email", "zhang.san@example.com"),
    ("我的手机号是13812345678。", "phone", "13812345678"),
    ("手机：138 1234 5678", "phone", "138 1234 5678"),
    ("+86 138-1234-5678 是我的", "phone", "+86 138-1234-5678"),
    ("座机010-62345678转", "phone", "010-62345678"),
    ("Call +1 (415) 555-2671 or", "phone", "+1 (415) 555-2671"),
    ("Call (415) 555-2671 now", "phone", "(415) 555-2671"),
    ("Ring +49 30 901820.", "phone", "+49 30 901820"),
    ("身份证号11010519491231002X，请核实", "id_card", "11010519491231002X"),
    ("ID 440524188001010014 is his", "id_card", "440524188001010014"),
    ("卡号6222021234567890128请查收", "bank_card", None),
    ("Card 4111 1111 1111 1111, thanks", "bank_card", "4111 1111 1111 1111"),
    ("card 5500-0055-5555-5559", "bank_card", "5500-0055-5555-5559"),
    ("export KEY=AKIAIOSFODNN7EXAMPLE", "keys", "AKIAIOSFODNN7EXAMPLE"),
    (f'aws_secret_access_key = "{AWS_SECRET}"', "keys", AWS_SECRET),
    ("密钥sk-proj-abcdefghijklmnop1234567890。", "keys", "sk-proj-abcdefghijklmnop1234567890"),
    ("token lao_admin_Zm9vYmFyYmF6cXV4MTIzNDU2", "keys", "lao_admin_Zm9vYmFyYmF6cXV4MTIzNDU2"),
    (f"Bearer {JWT}.", "keys", JWT),
    (f"key:\n{PEM}\nend", "keys", PEM),
]
NOT_FOUND = [
    "Order 1234567890123 of 2026-11-21 costs 1,299.00 in 12 parts",
    "身份证号110105194912310021是错的",  # check digit
    "4111 1111 1111 1112 is no card",  # check digit
    "0000000000000000",
    "versions 1.2.3.4 and 10.0.0.1:8080, at 12:30:45.123456",
    "订单号2026112112345678901234",
    "me@localhost, @example, user@, a@b",
    "https://example.com/a?b=c#d and C++ and risk-free task-sk-1",
    "uuid 550e8400-e29b-41d4-a716-446655440000 sha 9f86d081884c7d659a2feaa0c55ad015",
    "第12345678号，共3页",
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
]


@pytest.mark.parametrize(("text", "kind", "value"), FOUND)
def test_finds_what_identifies(text: str, kind: str, value: str | None) -> None:
    if value is None:  # complete the check digit
        text = next(
            changed for digit in "0123456789" if find(changed := text.replace("0128", f"012{digit}"), ["bank_card"])
        )
        assert [each.kind for each in find(text)] == [kind]
        return
    assert [(each.kind, text[each.start : each.end]) for each in find(text)] == [(kind, value)]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_leaves_the_rest_alone(text: str) -> None:
    assert find(text) == []


def test_only_what_is_switched_on() -> None:
    text = "ada@example.com, 13812345678"
    assert [each.kind for each in find(text, ["phone"])] == ["phone"]


def test_the_same_value_has_the_same_placeholder_and_comes_back() -> None:
    vault = Vault()
    redacted = vault.redact("ada@example.com and bob@example.com; 请回复ada@example.com或13812345678")
    assert redacted == "<EMAIL_1> and <EMAIL_2>; 请回复<EMAIL_1>或<PHONE_1>"
    assert vault.restore("I wrote to <EMAIL_2>, not <EMAIL_9>") == "I wrote to bob@example.com, not <EMAIL_9>"
    assert vault.unknown("<EMAIL_2> <EMAIL_9>") == ["<EMAIL_9>"]


def test_a_placeholder_that_somebody_wrote_is_not_given_away() -> None:
    vault = Vault()
    assert vault.redact("<EMAIL_1> wrote to ada@example.com") == "<EMAIL_1> wrote to <EMAIL_2>"
    assert vault.restore("<EMAIL_1> wrote to <EMAIL_2>") == "<EMAIL_1> wrote to ada@example.com"


def test_a_full_vault_redacts_for_good() -> None:
    vault = Vault(most=1)
    assert vault.redact("a@example.com b@example.com") == "<EMAIL_1> <EMAIL>"


def test_every_text_of_a_value() -> None:
    vault = Vault()
    value = {"to": ["ada@example.com"], "n": 3, "13812345678": None}
    redacted = each_text(value, vault.redact)
    assert redacted == {"to": ["<EMAIL_1>"], "n": 3, "<PHONE_1>": None}
    assert each_text(redacted, vault.restore) == value


PIECES = st.one_of(
    st.text(max_size=20),
    st.sampled_from([value for _, _, value in FOUND if value] + ["<EMAIL_1>", "<PHONE_2>", "@", "电话", " ", "-"]),
)


@given(st.lists(PIECES, max_size=12).map("".join), st.sets(st.sampled_from(KINDS)))
def test_placeholders_can_be_undone_and_nothing_is_left(text: str, kinds: set[str]) -> None:
    vault = Vault(kinds)
    redacted = vault.redact(text)
    assert vault.restore(redacted) == text
    for each in find(redacted, kinds):  # only what came about by joining
        assert redacted[each.start : each.end] not in vault.values.values()
    places = find(text, kinds)
    assert all(a.end <= b.start for a, b in pairwise(places))
    assert Vault(kinds, vault.values).redact(text) == redacted


HARD = ["a" * 100, "1" * 100, "1 " * 50, "a." * 50, "@" * 100, "a@" * 50, "+1 " * 40, "eyJa." * 30, "-----BEGIN A"]
HARD += ["aws secret " * 10, "-----BEGIN PRIVATE KEY-----", "1-" * 50, "(415) " * 20, "6222 " * 20, "a@b.c." * 20]


@pytest.mark.parametrize("piece", HARD)
def test_time_is_linear(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * (size // len(piece) + 1))[:size]
        best = 1e9
        for _ in range(3):
            begun = time.thread_time()
            find(text)
            best = min(best, time.thread_time() - begun)
        return best

    seconds(1000)
    assert seconds(80_000) < 4  # a quadratic expression takes minutes
