"""`simulations.lab.upstream`, under the name that tests use."""

from simulations.lab.upstream import Front, Traffic

__all__ = ["Front", "Traffic"]
