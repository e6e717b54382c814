"""The corpora replayed, and mutations of them tried: a short form of `make fuzz` without atheris."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CORPUS, INPUT_SIZE_MAX, TARGETS, check_of, corpus

MEMORY_MAX = 16 << 20  # bytes that one input of a few hundred may make the code hold
EXAMPLES = 60  # of each target


def test_each_target_has_a_corpus_and_each_corpus_a_target() -> None:
    modules = {path.stem for path in CORPUS.parent.glob("*.py") if "\ndef check(" in path.read_text()}
    assert modules == set(TARGETS)
    assert [target for target in TARGETS if len(corpus(target)) < 3] == []


@pytest.mark.parametrize(("target", "name"), [(target, name) for target in TARGETS for name in corpus(target)])
def test_corpus(target: str, name: str) -> None:
    check, data = check_of(target), corpus(target)[name]
    check(data)  # what is made once is made now
    tracemalloc.start()
    try:
        check(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MEMORY_MAX, f"{peak / 1e6:.0f} MB for {len(data)} bytes"


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the corpus with a few places cut out, overwritten, repeated, or joined with another."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 40)))
        middle = draw(
            st.one_of(
                st.binary(max_size=8),
                st.just(data[start:stop] * draw(st.integers(2, 30))),
                st.sampled_from(seeds).map(lambda other: other[-40:]),
            )
        )
        data = data[:start] + middle + data[stop:]
    return data[:INPUT_SIZE_MAX]


@pytest.mark.parametrize("target", TARGETS)
def test_mutations(target: str) -> None:
    check = check_of(target)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=400), mutations(list(corpus(target).values()))))
    def mutated(data: bytes) -> None:
        check(data)

    mutated()
