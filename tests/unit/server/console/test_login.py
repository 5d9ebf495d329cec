"""Login links are good once and for ten minutes; guessing is limited; nobody is sent elsewhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.core.clock import ManualClock
from llmagentos.core.errors import TooManyRequests
from llmagentos.security.identity import Identity, Kind
from llmagentos.server.console.login import Attempts, LoginLinks, safe_next

WHO = Identity(Kind.OPERATOR, "li", "t1")


def test_a_link_logs_in_once() -> None:
    links = LoginLinks(ManualClock())
    code = links.create(WHO)
    assert links.redeem(code) == WHO
    assert links.redeem(code) is None


def test_a_link_is_too_old_after_ten_minutes() -> None:
    clock = ManualClock()
    links = LoginLinks(clock)
    early, late = links.create(WHO), links.create(WHO)
    clock.advance(599)
    assert links.redeem(early) == WHO
    clock.advance(1)
    assert links.redeem(late) is None


def test_a_made_up_code_is_nobody() -> None:
    assert LoginLinks(ManualClock()).redeem("x" * 32) is None


def test_the_oldest_links_go_when_there_are_too_many() -> None:
    links = LoginLinks(ManualClock())
    codes = [links.create(WHO) for _ in range(300)]
    assert links.redeem(codes[0]) is None
    assert links.redeem(codes[-1]) == WHO


def test_the_eleventh_guess_has_to_wait() -> None:
    clock = ManualClock()
    attempts = Attempts(clock)
    for _ in range(10):
        attempts.check("10.0.0.1")
        attempts.failed("10.0.0.1")
        clock.advance(1)
    with pytest.raises(TooManyRequests) as caught:
        attempts.check("10.0.0.1")
    assert caught.value.retry_after == 290
    attempts.check("10.0.0.2")
    clock.advance(290)
    attempts.check("10.0.0.1")


@pytest.mark.parametrize(
    "target", ["/", "/runs", "/runs?active=1", "/nodes/db%201", "/services#service-catalogue", "/jobs/7?lang=zh-CN"]
)
def test_pages_of_the_console_are_safe(target: str) -> None:
    assert safe_next(target) == target


@pytest.mark.parametrize(
    "target",
    [None, "", "runs", "//evil.example", "/\\evil.example", "/\t/evil.example", "https://evil.example", "/login?next=/",
     "/logout", "javascript:alert(1)", "/runs\r\nSet-Cookie: a=b", "/ /evil.example"],
)  # fmt: skip
def test_everything_else_leads_to_the_overview(target: str | None) -> None:
    assert safe_next(target) == "/"


@given(st.text(max_size=40).map(lambda text: "/" + text))
def test_where_it_leads_is_always_a_path_here(target: str) -> None:
    led = safe_next(target)
    assert led.startswith("/")
    assert not led.startswith(("//", "/\\"))
    assert not any(ord(character) < 33 for character in led)
