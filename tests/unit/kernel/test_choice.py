"""Power of two choices, and suspicion."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from llmagentos.kernel.choice import FIRST_SUSPICION_S, MOST_SUSPICION_S, Peer, choose

PEERS = st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100), st.integers(0, 20)), min_size=1, max_size=10).map(
    lambda rows: [Peer(str(i), o, f, s) for i, (o, s, f) in enumerate(rows)]
)


@given(PEERS, st.floats(0, 120), st.randoms(use_true_random=False))
def test_a_suspect_is_taken_only_when_all_are(peers: list[Peer], now: float, chance: random.Random) -> None:
    chosen = choose(peers, now, chance.randrange)
    trusted = [peer for peer in peers if peer.suspect_until <= now]
    if trusted:
        assert chosen in trusted
    else:
        assert chosen.suspect_until == min(peer.suspect_until for peer in peers)


@given(PEERS, st.randoms(use_true_random=False))
def test_the_busiest_is_never_taken_while_another_is_less_busy(peers: list[Peer], chance: random.Random) -> None:
    trusted = [peer for peer in peers if peer.suspect_until <= 200]
    busiest = max(peer.outstanding for peer in trusted)
    if sum(peer.outstanding == busiest for peer in trusted) == 1 and len(trusted) > 1:
        assert choose(peers, 200.0, chance.randrange).outstanding < busiest


def test_load_is_spread() -> None:
    """n balls in n bins: two choices keep the fullest near log log n, one choice would not."""
    chance = random.Random(7)
    peers = [Peer(str(i)) for i in range(200)]
    for _ in range(200):
        choose(peers, 0.0, chance.randrange).outstanding += 1
    assert max(peer.outstanding for peer in peers) <= 4


def test_every_peer_gets_calls() -> None:
    chance = random.Random(7)
    peers = [Peer(str(i)) for i in range(5)]
    taken = [choose(peers, 0.0, chance.randrange).key for _ in range(500)]
    assert all(60 < taken.count(peer.key) < 140 for peer in peers)


def test_suspicion_grows_to_its_limit_and_ends_with_an_answer() -> None:
    peer = Peer("a")
    lengths = []
    for _ in range(10):
        peer.failed(100.0)
        lengths.append(peer.suspect_until - 100.0)
    assert lengths[:2] == [FIRST_SUSPICION_S, 2 * FIRST_SUSPICION_S]
    assert lengths[-1] == MOST_SUSPICION_S
    peer.answered()
    assert (peer.suspect_until, peer.failures) == (0.0, 0)
