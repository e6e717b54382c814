"""The registry mirror that this node's containerd, and other OCI clients on it, pull from. See server.py."""

from p2pd.mirror.library import Interrupted, Library, NotAvailable, PassedThrough, Reader, Refused
from p2pd.mirror.server import serve_mirror
from p2pd.mirror.settings import MirrorSettings

__all__ = [
    "Interrupted",
    "Library",
    "MirrorSettings",
    "NotAvailable",
    "PassedThrough",
    "Reader",
    "Refused",
    "serve_mirror",
]
