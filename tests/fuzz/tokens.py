"""A token service's answer: a token that can stand in a header, for a bounded time, or BadAnswer without the secret."""

from __future__ import annotations

from p2pd.upstream.auth import TOKEN_LENGTH_MAX, TOKEN_LIFETIME_MAX_S, parse_token
from p2pd.upstream.errors import BadAnswer


def check(data: bytes) -> None:
    try:
        token, lifetime = parse_token(data, "r.example: the token service")
    except BadAnswer as error:
        assert str(error).startswith("r.example: the token service answered ")
        assert len(str(error)) < 100
        return
    assert 0 < len(token) <= TOKEN_LENGTH_MAX
    assert token.isascii() and token.isprintable() and " " not in token
    assert 0 < lifetime <= TOKEN_LIFETIME_MAX_S
