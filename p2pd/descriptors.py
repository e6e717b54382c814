"""How many descriptors the process may have. A shell allows 1024, which the bounds on connections together exceed.

Imports nothing of p2pd.
"""

from __future__ import annotations

import resource

# The mirror's 512 clients with a socket and a file each, 96 peers with theirs, 64 strangers, 64 connections to each of
# some registries, 512 parts of blobs, and the rest.
NEEDED = 4096


def raise_limit(needed: int = NEEDED) -> str:
    """Raise this process's own limit to `needed`, as far as it may; what to warn of, empty if all is well."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed >= needed:
        return ""
    return f"only {allowed} open files are allowed, and {needed} may be needed: start it with `ulimit -n {needed}`"
