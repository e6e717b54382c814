"""Who somebody is to a registry: a user name and password, or an identity token.

Secrets are never part of a repr or of an error. Where they come from: auth_files.py, helpers.py, kubelet.py.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Password:
    """For Basic, and for a token service asked with GET."""

    username: str = field(repr=False)
    password: str = field(repr=False)

    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617, UTF-8)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class IdentityToken:
    """A refresh token for the token service (`docker login` stores it as "identitytoken")."""

    token: str = field(repr=False)


Credentials = Password | IdentityToken


class BadCredentials(ValueError):
    """A place that should hold credentials can't be used: names the file, the entry or the program and what to do, and
    never what is in it."""


def is_plain(*texts: object) -> bool:
    """Whether these are texts that can stand in credentials: no line breaks, nor other control characters; and no
    halves of characters (lone surrogates), which JSON can hold and UTF-8 has not."""
    return all(
        isinstance(text, str) and not any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in text)
        for text in texts
    )
