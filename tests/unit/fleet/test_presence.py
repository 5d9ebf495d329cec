"""Which nodes are there, when several servers hear them."""

from __future__ import annotations

from llmagentos.core.clock import ManualClock
from llmagentos.fleet.presence import Presence

AWAY_S = 30.0


def test_a_node_that_another_server_hears_is_there():
    clock = ManualClock()
    presence = Presence(clock, AWAY_S)
    presence.look({"a": 1.0})
    assert not presence.away("a"), "it joined elsewhere"
    for second in range(10):
        clock.advance(AWAY_S / 2)
        presence.look({"a": 2.0 + second})
        assert not presence.away("a")
    clock.advance(AWAY_S / 2)
    presence.look({"a": 11.0})
    clock.advance(AWAY_S / 2)
    assert presence.away("a"), "nothing new was heard"


def test_what_was_heard_here_is_no_news_and_wall_clocks_do_not_count():
    clock = ManualClock()
    presence = Presence(clock, AWAY_S)
    presence.heard("a", 5.0)
    clock.advance(AWAY_S - 1)
    presence.look({"a": 5.0})
    clock.advance(1)
    assert presence.away("a")
    presence.look({"a": 4.0})  # the other server's clock is behind
    assert not presence.away("a")


def test_what_storage_lacks_is_forgotten():
    clock = ManualClock()
    presence = Presence(clock, AWAY_S)
    presence.restore("old", clock.time() - AWAY_S)
    presence.restore("new", clock.time() - 1)
    presence.look({"old": clock.time() - AWAY_S, "new": clock.time() - 1})
    assert presence.away("old") and not presence.away("new")
    presence.look({})
    assert presence.away("new")
