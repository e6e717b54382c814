"""`simulations.lab.warehouse`, under the name that tests use."""

from simulations.lab.warehouse import Warehouse

__all__ = ["Warehouse"]
