"""The lab's fixtures."""

from tests.lab.fixtures import pytest_runtest_makereport, pytest_runtest_setup, warehouse

__all__ = ["pytest_runtest_makereport", "pytest_runtest_setup", "warehouse"]
