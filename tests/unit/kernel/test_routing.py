"""Placing calls on replicas: long prompts where their prefix is, short ones where there is room."""

from __future__ import annotations

from llmagentos.kernel.routing import Fallback, Router, fallback


def test_long_prompts_stick_and_short_ones_spread() -> None:
    router = Router({"a": 4, "b": 4})
    home = router.place("run", 5_000)
    assert home is not None
    assert router.place("run", 5_000) == home
    assert router.place("run", 100) != home
    assert router.place(None, 100) != home  # two calls run there, one on the other


def test_load_is_relative_to_slots() -> None:
    router = Router({"small": 1, "large": 8})
    assert [router.place(None, 1) for _ in range(4)] == ["large", "small", "large", "large"]


def test_a_home_without_room_or_with_an_open_breaker_is_left() -> None:
    router = Router({"a": 1, "b": 1})
    home = router.place("run", 5_000)
    other = router.place("run", 5_000)
    assert {home, other} == {"a", "b"}
    assert router.place("run", 5_000) is None
    assert home is not None and other is not None
    router.leave(home)
    router.leave(other)
    assert router.place("run", 5_000, usable={home}) == home  # it moved to `other`, which may not be used
    assert router.place("x", 10, usable=()) is None


def test_replicas_come_and_go() -> None:
    router = Router({"a": 2})
    assert router.place("run", 5_000) == "a"
    router.resize("b", 3)
    router.resize("a", 0)
    assert router.slots() == 3
    assert router.place("run", 5_000) == "b"
    router.leave("a")  # a call that outlived its replica
    router.resize("b", 1)
    assert router.place("other", 5_000) is None


def test_remembered_prefixes_are_bounded() -> None:
    router = Router({"a": 1_000_000}, max_prefixes=10)
    for number in range(100):
        router.place(str(number), 5_000)
    assert len(router._homes) == 10


def test_a_fallback_takes_what_it_is_there_for() -> None:
    chain = [Fallback("near", frozenset({"timeout"})), Fallback("far")]
    usable = {"near", "far"}
    assert fallback(chain, "timeout", tried={"m"}, usable=usable) == "near"
    assert fallback(chain, "quota", tried={"m"}, usable=usable) == "far"
    assert fallback(chain, "timeout", tried={"m", "near"}, usable=usable) == "far"
    assert fallback(chain, "error", tried={"m"}, usable={"near"}) is None
