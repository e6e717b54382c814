"""WWW-Authenticate, as registries send it (RFC 9110, 11.6.1).

Several challenges in one header or in several, commas inside quoted strings, names in any case. A header is the other
side's text: whatever it holds, parsing ends in linear time with the challenges that could be read.
Imports nothing of p2pd.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HEADER_LENGTH_MAX = 8192  # of all challenge headers of one answer; a longer one is not meant for us
CHALLENGES_MAX = 16
PARAMETERS_MAX = 32  # of one challenge; real ones have four

_SEPARATORS = re.compile(r"[\s,]*+")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
# A value may be a token or quoted; some registries leave out the quotes around a URL.
_PARAMETER = re.compile(rf'({_TOKEN})\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s,"=][^\s,"]*+))(?=[\s,]|$)', re.DOTALL)
_SCHEME = re.compile(rf"({_TOKEN})(?=[\s,]|$)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]++=*+(?=\s*+(?:,|$))")
_REST = re.compile(r'(?:"(?:[^"\\]|\\.)*+"?|[^\s,"])++', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """`scheme` and the names in `parameters` are lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """All challenges of an answer's WWW-Authenticate headers, in order."""
    text = ", ".join(headers)
    if len(text) > HEADER_LENGTH_MAX:
        return []
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while True:
        position = _SEPARATORS.match(text, position).end()  # type: ignore[union-attr]  # matches the empty string too
        if position == len(text):
            return [Challenge(scheme, parameters) for scheme, parameters in found]
        if match := _PARAMETER.match(text, position):
            if found:
                _add(found[-1][1], match)
        elif match := _SCHEME.match(text, position):
            if len(found) == CHALLENGES_MAX:
                return [Challenge(scheme, parameters) for scheme, parameters in found]
            found.append((match[1].lower(), {}))
            position = _skip_token68(text, match.end())
            continue
        else:
            match = _REST.match(text, position)
        position = match.end() if match else position + 1


def _add(parameters: dict[str, str], match: re.Match[str]) -> None:
    name = match[1].lower()
    value = re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL) if match[2] is not None else match[3]
    if name not in parameters and len(parameters) < PARAMETERS_MAX:
        parameters[name] = value


def _skip_token68(text: str, position: int) -> int:
    """Past the single opaque value that may follow a scheme ("Negotiate YII=")."""
    spaces = re.compile(r"[ \t]++").match(text, position)
    if not spaces or _PARAMETER.match(text, spaces.end()):
        return position
    value = _TOKEN68.match(text, spaces.end())
    return value.end() if value else position
