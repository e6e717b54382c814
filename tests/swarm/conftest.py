"""A simulated run that fails says how to see it again: its name holds the seed and all that was drawn from it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def replay(request: pytest.FixtureRequest) -> None:
    print(f"replay: python -m pytest '{request.node.nodeid}'")
