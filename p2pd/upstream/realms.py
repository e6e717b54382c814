"""Which token service may be asked, and which may see the credentials.

A registry names its token service in a header, so a registry that was taken over could name a thief. Credentials go
only to the registry's own host, to names under the same registrable domain, and to hosts that are listed: here for
well-known registries, in the configuration for others. May know this package's config, errors and urls.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from p2pd.upstream.config import UpstreamConfig
from p2pd.upstream.errors import BadAnswer
from p2pd.upstream.urls import origin, same_site

# Token services of well-known registries that live under another domain.
KNOWN_REALMS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "icr.io": frozenset({"iam.cloud.ibm.com"}),
        "lscr.io": frozenset({"ghcr.io"}),  # its API is ghcr.io behind another name
        "us.gcr.io": frozenset({"gcr.io"}),
        "eu.gcr.io": frozenset({"gcr.io"}),
        "asia.gcr.io": frozenset({"gcr.io"}),
    }
)


def check_realm(config: UpstreamConfig, realm: str) -> None:
    """BadAnswer unless the token service at `realm` may be asked at all: a token is a secret, so it needs TLS.

    Exempt are registries whose own url has none, and those configured so.
    """
    try:
        place = origin(realm)
    except BadAnswer:
        raise BadAnswer(f"{config.host}: names a token service whose realm is not a usable URL") from None
    if place.scheme != "https" and not config.allow_insecure_realm and origin(config.url).scheme == "https":
        raise BadAnswer(f"{config.host}: names a token service without TLS, at {place.host}")


def may_see_credentials(config: UpstreamConfig, realm: str) -> bool:
    """True if the credentials for this registry may go to the token service at `realm` (already checked)."""
    host = origin(realm).host
    if host in config.realm_hosts or host in KNOWN_REALMS.get(config.host, ()):
        return True
    return same_site(host, origin(config.url).host)
