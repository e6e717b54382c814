"""What the simulator says of the fleet that is measured: the same nodes, links and layers, the calibrated costs."""

from __future__ import annotations

from simulations.fleet.plan import FleetPlan
from simulations.fleet.report import Prediction


def predict(plan: FleetPlan) -> Prediction | None:
    """The median over PREDICTION_SEEDS runs of the simulator."""
    return None
