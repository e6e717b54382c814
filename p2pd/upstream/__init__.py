"""Registries: requests, tokens, credentials, redirects, ranges, and the peace that a registry asks for.

Not a cache, and not a judge of bytes: whoever receives them hashes them. httpx stands behind transport.py and is seen
nowhere else. May know p2pd.oci; never the mirror, the swarm, the store or the peers.
"""

from p2pd.upstream.auth import Identity
from p2pd.upstream.config import WELL_KNOWN, NodeCredentials, UpstreamConfig
from p2pd.upstream.errors import (
    BadAnswer,
    Denied,
    NotFound,
    RateLimited,
    UnknownUpstream,
    Unreachable,
    UpstreamError,
)
from p2pd.upstream.presented import parse_authorization
from p2pd.upstream.registry import Registry, Response
from p2pd.upstream.stream import BlobStream, Opened
from p2pd.upstream.upstreams import Upstreams

__all__ = [
    "WELL_KNOWN",
    "BadAnswer",
    "BlobStream",
    "Denied",
    "Identity",
    "NodeCredentials",
    "NotFound",
    "Opened",
    "RateLimited",
    "Registry",
    "Response",
    "UnknownUpstream",
    "Unreachable",
    "UpstreamConfig",
    "UpstreamError",
    "Upstreams",
    "parse_authorization",
]
