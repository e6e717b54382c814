"""The registry mirror that this node's containerd, and other OCI clients on it, pull from. See server.py."""

from p2pd.mirror.library import (
    Challenged,
    Interrupted,
    Library,
    NotAvailable,
    PassedThrough,
    Presented,
    Reader,
    Refused,
)
from p2pd.mirror.server import serve_mirror
from p2pd.mirror.settings import MirrorSettings

__all__ = [
    "Challenged",
    "Interrupted",
    "Library",
    "MirrorSettings",
    "NotAvailable",
    "PassedThrough",
    "Presented",
    "Reader",
    "Refused",
    "serve_mirror",
]
