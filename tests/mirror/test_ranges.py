"""Which bytes a Range header names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pd.mirror.ranges import Span, Unsatisfiable, select_span

SIZES = st.integers(0, 1 << 50)


@given(SIZES, st.integers(0, 1 << 60), st.integers(0, 1 << 60))
def test_a_first_and_a_last_byte(size: int, first: int, last: int) -> None:
    header = f"bytes={first}-{last}"
    if last < first or (first >= size and not (size == 0 and first == 0)):
        with pytest.raises(Unsatisfiable):
            select_span(header, size)
    elif size == 0:
        assert select_span(header, size) == Span(0, 0, partial=False)
    else:
        assert select_span(header, size) == Span(first, min(last + 1, size), partial=True)


@given(st.integers(1, 1 << 50), st.integers(1, 1 << 60))
def test_a_suffix(size: int, length: int) -> None:
    assert select_span(f"bytes=-{length}", size) == Span(max(0, size - length), size, partial=True)


@given(
    st.one_of(st.none(), st.text(), st.from_regex(r"\A *bytes *=[0-9 ,-]*\Z"), st.text("bytes=0123456789-, ")), SIZES
)
def test_any_header_names_bytes_that_are_there(header: str | None, size: int) -> None:
    try:
        span = select_span(header, size)
    except Unsatisfiable:
        return
    assert 0 <= span.start <= span.stop <= size
    assert (span.start < span.stop) if span.partial else (span.start, span.stop) == (0, size)


def test_numbers_of_any_length() -> None:
    """int() refuses more than 4300 digits; a header may have more."""
    nines = "9" * 6000
    assert select_span(f"bytes=5-{nines}", 10) == Span(5, 10, partial=True)
    assert select_span(f"bytes=-{nines}", 10) == Span(0, 10, partial=True)
    assert select_span("bytes=" + "0" * 6000 + "3-4", 10) == Span(3, 5, partial=True)
    with pytest.raises(Unsatisfiable):
        select_span(f"bytes={nines}-", 10)


def test_white_space_empty_elements_and_case() -> None:
    for header in ("bytes=2-3", "Bytes = 2-3 ", "BYTES=,2-3,", "bytes=\t2-3"):
        assert select_span(header, 10) == Span(2, 4, partial=True)


def test_digits_are_ascii() -> None:
    assert select_span("bytes=\N{ARABIC-INDIC DIGIT TWO}-5", 10) == Span(0, 10, partial=False)
