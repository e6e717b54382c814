"""`simulations.lab.lab`, under the name that tests use."""

from simulations.lab.lab import REGISTRY_NAME, REGISTRY_NAME_PLAIN, Lab, Machine, Plan, reference

__all__ = ["REGISTRY_NAME", "REGISTRY_NAME_PLAIN", "Lab", "Machine", "Plan", "reference"]
