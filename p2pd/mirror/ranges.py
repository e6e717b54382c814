"""The Range header of RFC 9110, section 14, as far as registry clients use it. Pure; knows nothing of HTTP messages.

One range is honoured. A set of several gets the whole blob, which RFC 9110 allows and the clients that send them
(containers/image for zstd:chunked, stargz) accept; a single part in answer to several breaks them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_UNIT = re.compile(r"[ \t]*bytes[ \t]*=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC = re.compile(r"(?:([0-9]+)-([0-9]*)|-([0-9]+))")
_DIGITS_MAX = 18  # more digits than any size has: enough to compare, and int() stays cheap and never refuses


class Unsatisfiable(Exception):
    """The range asks for no byte of the blob: 416."""


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes start (inclusive) to stop (exclusive) of a blob; `partial` if a range was honoured: 206, not 200."""

    start: int
    stop: int
    partial: bool


def select_span(header: str | None, size: int) -> Span:
    """What to send of a blob of `size` bytes for a Range header (None: there is none). Raises Unsatisfiable.

    Headers that are not valid are ignored, as RFC 9110 asks; only a range that runs backwards ("500-0") is refused,
    since that is what the registries' conformance tests want. An empty blob has nothing that a 206 could name, so a
    range from its start gets it whole: containerd 2.1.0 to 2.1.2 send "bytes=0-" for everything.
    """
    whole = Span(0, size, partial=False)
    match = _UNIT.fullmatch(header) if header is not None else None
    if match is None:
        return whole
    specs = [spec.strip(" \t") for spec in match[1].split(",")]
    specs = [spec for spec in specs if spec]
    if len(specs) != 1 or (spec := _SPEC.fullmatch(specs[0])) is None:
        return whole
    first, last, suffix = spec.groups()
    if suffix is not None:
        length = _number(suffix)
        if length == 0:
            raise Unsatisfiable
        return Span(max(size - length, 0), size, partial=True) if size else whole
    start = _number(first)
    stop = _number(last) + 1 if last else size
    if last and _number(last) < start:
        raise Unsatisfiable
    if size == 0 and start == 0:
        return whole
    if start >= size:
        raise Unsatisfiable
    return Span(start, min(stop, size), partial=True)


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return 10**_DIGITS_MAX if len(digits) > _DIGITS_MAX else int(digits or "0")
