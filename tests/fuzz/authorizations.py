"""A client's Authorization header: a password or a token that can be sent on, or nothing."""

from __future__ import annotations

from p2pd.upstream.credentials import Password
from p2pd.upstream.presented import parse_authorization


def check(data: bytes) -> None:
    found = parse_authorization(data.decode("latin-1"))
    if isinstance(found, Password):
        header = found.basic()
        assert header.isascii() and header.isprintable()
        assert parse_authorization(header) == found
    elif found is not None:
        assert found.isascii() and found.isprintable() and " " not in found
