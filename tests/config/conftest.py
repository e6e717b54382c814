"""Tests that see the same configuration everywhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pd.config import load


@pytest.fixture(scope="package", autouse=True)
def no_configuration_of_this_machine() -> Iterator[None]:
    """Neither /etc/p2pd nor the environment of whoever runs the tests changes what they see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "DEFAULT_PATH", Path("/nonexistent/p2pd.toml"))
        for name in [name for name in os.environ if name.startswith("P2PD_")]:
            patch.delenv(name)
        yield
