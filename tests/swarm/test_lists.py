"""Comparing lists of states from the digest down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pd.swarm.lists import Comparison, highest_disagreement
from p2pd.swarm.messages import LINKS_MAX
from tests.swarm.fakes import digest_of, true_states, vouch

COUNT = 200
BLOB = digest_of("large blob")
SIZE = COUNT << 17
TRUE = true_states(BLOB, COUNT)


def forged(first: int, end: int) -> list[bytes]:
    """True, but for the states from `first` up to `end`."""
    return [bytes([i % 251 + 1]) * 32 if first <= i < end else state for i, state in enumerate(TRUE)]


def listed(states: list[bytes]) -> dict[int, bytes]:
    return dict(enumerate(states))


def test_the_highest_place_where_they_agree_above_and_differ_below() -> None:
    assert highest_disagreement(listed(TRUE), listed(forged(50, 60)), COUNT) == (59, 60)
    assert highest_disagreement(listed(TRUE), listed(forged(50, COUNT)), COUNT) == (COUNT - 1, COUNT)


def test_the_same_lists_agree_to_the_bottom() -> None:
    assert highest_disagreement(listed(TRUE), listed(TRUE), COUNT) == (None, 0)


def test_what_is_not_known_settles_nothing() -> None:
    part = {i: state for i, state in listed(forged(50, 60)).items() if i >= 100}
    assert highest_disagreement(listed(TRUE), part, COUNT) == (None, 100)
    assert highest_disagreement(part, listed(TRUE), COUNT) == (None, 100)


@given(st.data())
def test_only_a_true_lists_piece_can_fit_there(data: st.DataObject) -> None:
    """Whatever is forged: the state above the link is true in both lists, so only the true one below leads there."""
    first = data.draw(st.integers(1, COUNT - 1))
    end = data.draw(st.integers(first + 1, COUNT))
    false = forged(first, end)
    seam, _ = highest_disagreement(listed(TRUE), listed(false), COUNT)
    assert seam is not None
    assert false[seam + 1] == TRUE[seam + 1]
    assert false[seam] != TRUE[seam]


def walk(ours: list[bytes], theirs: list[bytes]) -> tuple[int | None, int]:
    """A whole comparison, a window at a time; the link that settles it, and how many windows it took."""
    comparison = Comparison(BLOB, COUNT)
    for windows in range(1, 100):
        first, count = comparison.window
        assert count <= LINKS_MAX
        comparison.hear(vouch("b", BLOB, SIZE, first, theirs[first : first + count + 1]))
        assert len(comparison.theirs) <= 2 * LINKS_MAX
        seam = comparison.compare(listed(ours))
        if seam is not None or comparison.agrees:
            return seam, windows
    raise AssertionError("it does not end")


def test_a_window_at_a_time() -> None:
    assert walk(TRUE, forged(50, COUNT)) == (COUNT - 1, 1)
    assert walk(TRUE, forged(50, 60)) == (59, 3)
    assert walk(forged(1, 2), TRUE) == (1, 4)
    assert walk(TRUE, TRUE) == (None, 4)


def test_the_sources_first_word_counts_and_nothing_beyond_the_window() -> None:
    comparison = Comparison(BLOB, COUNT)
    comparison.hear(vouch("b", BLOB, SIZE, COUNT - 2, TRUE[COUNT - 2 :]))
    comparison.hear(vouch("b", BLOB, SIZE, COUNT - 2, [bytes(32), bytes(32), bytes(32)]))
    comparison.hear(vouch("b", BLOB, SIZE, 5, TRUE[5:9]))
    assert comparison.theirs == {i: TRUE[i] for i in range(COUNT - 2, COUNT + 1)}


def test_a_list_that_ends_in_another_digest_is_not_heard_there() -> None:
    comparison = Comparison(BLOB, COUNT)
    comparison.hear(vouch("b", BLOB, SIZE, COUNT - 1, [TRUE[COUNT - 1], bytes(32)]))
    assert comparison.theirs[COUNT] == BLOB
