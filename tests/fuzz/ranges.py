"""Range, to the mirror; Content-Range, Content-Length, Retry-After and a few more, from registries.

The first eight bytes are the blob's size.
"""

from __future__ import annotations

from p2pd.mirror.ranges import Unsatisfiable, select_span
from p2pd.upstream.headers import (
    RETRY_AFTER_MAX_S,
    RETRY_AFTER_MIN_S,
    parse_content_range,
    parse_length,
    parse_remaining,
    parse_retry_after,
    plain_media_type,
)


def check(data: bytes) -> None:
    size, text = int.from_bytes(data[:8], "big") >> 14, data[8:].decode("latin-1")
    try:
        span = select_span(text, size)
    except Unsatisfiable:
        pass
    else:
        assert 0 <= span.start <= span.stop <= size
        assert span.partial or (span.start, span.stop) == (0, size)
        if span.partial:
            assert span.start < span.stop
            assert select_span(f"bytes={span.start}-{span.stop - 1}", size) == span
    found = parse_content_range(text)
    if found is not None:
        first, last, total = found
        assert 0 <= first <= last < total
        assert parse_content_range(f"bytes {first}-{last}/{total}") == found
    assert (parse_length(text) or 0) >= 0
    assert (parse_remaining(text) or 0) >= 0
    assert RETRY_AFTER_MIN_S <= parse_retry_after(text, 1e9) <= RETRY_AFTER_MAX_S
    media_type = plain_media_type(text)
    assert media_type is None or (media_type.isascii() and len(media_type) <= 255)
