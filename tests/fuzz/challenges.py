"""WWW-Authenticate, and the URLs that registries send us to: what comes out is bounded, clean, and reads back the same.

Lines are headers.
"""

from __future__ import annotations

from p2pd.upstream.challenges import CHALLENGES_MAX, PARAMETERS_MAX, parse_challenges
from p2pd.upstream.config import UpstreamConfig
from p2pd.upstream.errors import BadAnswer
from p2pd.upstream.realms import check_realm, may_see_credentials
from p2pd.upstream.urls import is_private_address, names_private_host, origin, redirect_target

_REGISTRY = UpstreamConfig(host="registry.example.com", url="https://registry.example.com")


def check(data: bytes) -> None:
    headers = data.decode("latin-1").split("\n")
    challenges = parse_challenges(headers)
    assert len(challenges) <= CHALLENGES_MAX
    for challenge in challenges:
        assert challenge.scheme == challenge.scheme.lower()
        assert len(challenge.parameters) <= PARAMETERS_MAX
        written = ", ".join(f'{name}="{_quoted(value)}"' for name, value in challenge.parameters.items())
        if len(written) < 4000:
            assert parse_challenges([f"{challenge.scheme} {written}"]) == [challenge]
        _realm(challenge.parameters.get("realm", ""))
    for header in headers:
        _realm(header)
        _redirect(header)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _realm(realm: str) -> None:
    try:
        check_realm(_REGISTRY, realm)
    except BadAnswer:
        return
    place = origin(realm)
    assert place.scheme == "https"
    if may_see_credentials(_REGISTRY, realm):
        assert place.host == "example.com" or place.host.endswith(".example.com")


def _redirect(location: str) -> None:
    try:
        target = redirect_target("https://registry.example.com/v2/", location)
    except BadAnswer:
        return
    place = origin(target)
    assert place.scheme == "https" and 0 < place.port < 65536
    assert "\r" not in target and "\n" not in target and "#" not in target
    if place.host[0].isdigit() and place.host.replace(".", "").isdigit():
        is_private_address(place.host)  # a name that is all numbers is an address
    names_private_host(place.host)
