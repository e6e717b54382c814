"""What a client of the mirror shows to prove who it is: its Authorization header, read.

May know this package's credentials.
"""

from __future__ import annotations

import base64
import re

from p2pd.upstream.credentials import Password, is_plain

_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]+)")
_BASIC = re.compile(r"[Bb][Aa][Ss][Ii][Cc] +([A-Za-z0-9+/=_-]+)")


def parse_authorization(header: str) -> Password | str | None:
    """A user's name and password, a token (a str), or None for what shows nothing: another scheme, or an empty user
    without a password, as some clients send it (RFC 6750 and 7617)."""
    if match := _BEARER.fullmatch(header.strip()):
        return match[1]
    match = _BASIC.fullmatch(header.strip())
    if not match:
        return None
    try:
        name, colon, password = base64.b64decode(match[1], validate=True).decode().partition(":")
    except ValueError:
        return None
    if not colon or not (name or password) or not is_plain(name, password):
        return None
    return Password(name, password)
