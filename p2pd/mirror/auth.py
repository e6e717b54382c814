"""Credentials between a client and the mirror: what it shows, and how it is asked.

Nothing is judged here: the Library asks upstream. A secret is in `Presented` only, which never shows it. Knows
library.py and the connection's Request.
"""

from __future__ import annotations

import re

from p2pd.mirror.connection import Request
from p2pd.mirror.library import Challenged, Presented

_PLAIN = re.compile(r"[\x20-\x7e]*")  # what may stand in a quoted string without a doubt (RFC 9110, 5.6.4)


def presented(request: Request) -> Presented | None:
    """What a request shows; None if nothing, or several things at once."""
    header = request.header("authorization")
    return Presented(header) if header else None


def challenge_header(error: Challenged) -> str | None:
    """The value of WWW-Authenticate; None if a part of the challenge can't stand in a header."""
    if not all(_PLAIN.fullmatch(value) for value in error.parameters.values()):
        return None
    fields = [f'{name}="{_quoted(value)}"' for name, value in error.parameters.items()]
    return f"{error.scheme.capitalize()} {','.join(fields)}"


def _quoted(value: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", value)
