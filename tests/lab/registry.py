"""`simulations.lab.registry`, under the name that tests use."""

from simulations.lab.registry import Registry

__all__ = ["Registry"]
