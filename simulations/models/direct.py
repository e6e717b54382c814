"""No P2P: each node pulls each byte from upstream."""

from __future__ import annotations

from simulations.models.case import Case, Outcome


def direct(case: Case) -> Outcome:
    """Upstream's line is shared evenly, and no node gets more than its own line. Exact for a common start."""
    rate = min(case.link, case.upstream / case.nodes)
    return Outcome("no P2P", [case.size / rate] * case.nodes, float(case.nodes))
