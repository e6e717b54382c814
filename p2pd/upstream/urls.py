"""URLs that a registry hands us (redirects, realms), and which of them may be followed or trusted.

Decides only; sends nothing. A URL from here on may be signed: it never goes into a message, only its host does.
Imports this package's errors and suffixes, and nothing else of p2pd.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from p2pd.upstream.errors import BadAnswer
from p2pd.upstream.suffixes import COUNTRY_SECOND_LEVELS, SHARED_SUFFIXES

URL_LENGTH_MAX = 16384  # signed storage URLs have up to about 2 KiB
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """What must be the same for a credential to go along (RFC 6454)."""

    scheme: str
    host: str
    port: int


def origin(url: str) -> Origin:
    """The origin of an http(s) URL. BadAnswer if it is not one, or has a host that no resolver should be asked for."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower().rstrip("."), parts.port
    except ValueError:
        raise BadAnswer("not a URL") from None
    if len(url) > URL_LENGTH_MAX or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise BadAnswer("a URL that is too long or has characters that no URL has")
    if parts.scheme not in _DEFAULT_PORTS or not _is_host(host) or port == 0:
        raise BadAnswer("not an http or https URL with a valid host")
    return Origin(parts.scheme, host, port or _DEFAULT_PORTS[parts.scheme])


def redirect_target(current: str, location: str | None) -> str:
    """Where a redirect of `current` leads. BadAnswer if it leads nowhere, or from https to http."""
    if not location:
        raise BadAnswer("a redirect without Location")
    try:
        target = urljoin(current, location.strip())
    except ValueError:
        raise BadAnswer("a redirect to something that is not a URL") from None
    before, after = origin(current), origin(target)
    if before.scheme == "https" and after.scheme == "http":
        raise BadAnswer(f"a redirect from https to http, at {after.host}")
    return target.partition("#")[0]


def is_private_address(text: str) -> bool:
    """True for an IP address that is not for the public internet: loopback, link-local, private, reserved, multicast.

    An IPv4 address inside an IPv6 one (mapped, NAT64, 6to4) counts as what it leads to.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    return not address.is_global or address.is_multicast


def names_private_host(host: str, private: Callable[[str], bool] = is_private_address) -> bool:
    """True for a literal private address or a name that is one by definition (RFC 6761: localhost)."""
    if _is_address(host):
        return private(host)
    return host == "localhost" or host.endswith(".localhost")


def same_site(one: str, other: str) -> bool:
    """True if both hosts are the same, or names under one registrable domain. Addresses and bare names only match
    themselves."""
    if one == other:
        return True
    first, second = registrable_domain(one), registrable_domain(other)
    return first is not None and first == second


def registrable_domain(host: str) -> str | None:
    """The part of a name that one owner registered ("docker.io"). None where names beside it are strangers': for
    addresses, bare names, and under the suffixes that anybody can have a name under."""
    labels = host.split(".")
    if len(labels) < 2 or _is_address(host):
        return None
    if any(".".join(labels[-count:]) in SHARED_SUFFIXES for count in range(2, len(labels) + 1)):
        return None
    if len(labels[-1]) == 2 and labels[-2] in COUNTRY_SECOND_LEVELS:
        return ".".join(labels[-3:]) if len(labels) > 2 else None
    return ".".join(labels[-2:])


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_host(host: str) -> bool:
    # "127.1" and "0x7f.1" are addresses to some resolvers and names to us: a name must not end in a number (RFC 1123).
    if _is_address(host):
        return True
    labels = host.split(".")
    numeric = re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]) is not None
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not numeric
