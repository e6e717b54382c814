"""The few response headers that decide something, parsed strictly: Content-Range, Retry-After, rate limits, types.

Pure functions. Imports nothing of p2pd but this package's constants.
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

from p2pd.upstream.errors import RETRY_AFTER_DEFAULT_S

RETRY_AFTER_MIN_S = 1.0  # "Retry-After: 0" must not become a busy loop
RETRY_AFTER_MAX_S = 3600.0  # beyond an hour a registry's clock, or its word, is not to be trusted

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII | re.IGNORECASE)
_UNSATISFIED = re.compile(r"[0-9]{1,18}", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}", re.ASCII)


def parse_content_range(text: str | None) -> tuple[int, int, int] | None:
    """(first, last, total) of "bytes 5-99/100" (RFC 9110, 14.4); None if it is not that or contradicts itself."""
    match = _CONTENT_RANGE.fullmatch(text.strip()) if text else None
    if not match:
        return None
    first, last, total = (int(group) for group in match.groups())
    return (first, last, total) if first <= last < total else None


def parse_length(text: str | None) -> int | None:
    """A Content-Length in bytes; None if there is none or it is not a number."""
    match = _UNSATISFIED.fullmatch(text.strip()) if text else None
    return int(match[0]) if match else None


def parse_retry_after(text: str | None, now: float) -> float:
    """Seconds to wait, from seconds or an HTTP date (RFC 9110, 10.2.3); `now` is Unix time. Bounded both ways."""
    seconds = _retry_after(text.strip(), now) if text else None
    if seconds is None:
        return RETRY_AFTER_DEFAULT_S
    return min(max(seconds, RETRY_AFTER_MIN_S), RETRY_AFTER_MAX_S)


def _retry_after(text: str, now: float) -> float | None:
    if re.fullmatch(r"\d{1,18}", text, re.ASCII):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def parse_remaining(text: str | None) -> int | None:
    """Pulls left, of Docker Hub's "ratelimit-remaining: 76;w=21600"."""
    match = re.match(r"\s*(\d{1,9})\s*(?:;|$)", text, re.ASCII) if text else None
    return int(match[1]) if match else None


def plain_media_type(text: str | None) -> str | None:
    """A Content-Type without its parameters, lower case; None if it is not a media type."""
    if not text:
        return None
    bare = text.partition(";")[0].strip()
    return bare.lower() if _MEDIA_TYPE.fullmatch(bare) else None
