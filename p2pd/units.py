"""Sizes, rates and durations as people write them, in configuration and on the command line.

Imports nothing of p2pd.
"""

from __future__ import annotations

import re

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Bytes of "50GB", "256KiB", "1048576". ValueError says what is allowed."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a size: a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB, as in 50GB")
    return int(float(match[1]) * _SIZES[(match[2] or "").lower()])


def parse_rate(text: str) -> float | None:
    """Bytes a second of "100MB/s" or "25Mbit" (bits); None for "none"."""
    if text.strip().lower() in ("none", ""):
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?(bit(?:/s)?|b/s|bps)\s*", text, re.IGNORECASE)
    if not match or float(match[1]) == 0:
        allowed = "a number above 0 with MB/s (bytes) or Mbit (bits), as in 100MB/s, or none"
        raise ValueError(f"{text!r} is not a rate: {allowed}")
    rate = float(match[1]) * _SIZES[(match[2] or "").lower()]
    return rate / 8 if match[3].lower() in ("bit", "bit/s", "bps") else rate


def parse_duration(text: str) -> float:
    """Seconds of "5s", "250ms", "2m", "1h"."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*", text, re.IGNORECASE)
    if not match:
        raise ValueError(f"{text!r} is not a duration: a number with ms, s, m, h or d, as in 5s")
    return float(match[1]) * _DURATIONS[match[2].lower()]


def format_size(count: float) -> str:
    """1234567 -> "1.2 MB". Decimal units, as registries and network links are counted."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_rate(count: float) -> str:
    """Bytes a second -> "12.3 MB/s"."""
    return f"{format_size(count)}/s"
