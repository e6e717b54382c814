"""Rendezvous hashing: agreement without a word, and little that moves."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from p2pd.swarm.rendezvous import highest

NODES = [sha256(b"node %d" % i).digest()[:20] for i in range(20)]
KEYS = [sha256(b"key %d" % i).digest() for i in range(2000)]
some_nodes = st.lists(st.sampled_from(NODES), unique=True, max_size=20)


@given(some_nodes, st.sampled_from(KEYS), st.integers(0, 5), st.randoms())
def test_the_order_in_which_one_knows_them_does_not_matter(nodes, key, count, random) -> None:
    shuffled = list(nodes)
    random.shuffle(shuffled)
    assert highest(key, nodes, count) == highest(key, shuffled, count)
    assert len(highest(key, nodes, count)) == min(count, len(nodes))


@given(some_nodes, st.sampled_from(KEYS), st.sampled_from(NODES))
def test_who_leaves_moves_only_what_it_won(nodes, key, leaver) -> None:
    before = highest(key, nodes, len(nodes))
    after = highest(key, [n for n in nodes if n != leaver], len(nodes))
    assert after == [n for n in before if n != leaver]


def test_keys_spread_over_the_nodes() -> None:
    won = Counter(highest(key, NODES, 1)[0] for key in KEYS)
    assert len(won) == len(NODES)
    assert max(won.values()) < 2 * len(KEYS) / len(NODES)


def test_long_keys_are_cut_not_refused() -> None:
    assert highest(b"k" * 100, NODES, 1) == highest(b"k" * 64, NODES, 1)


def test_the_ranking_is_fixed() -> None:
    """Nodes of two versions must agree: a change here is a new protocol."""
    assert NODES.index(highest(KEYS[0], NODES, 1)[0]) == 6
