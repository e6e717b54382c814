"""The lab's fixtures, for the tests of the lab itself."""

from tests.lab.fixtures import make_lab, pytest_runtest_makereport, pytest_runtest_setup, warehouse

__all__ = ["make_lab", "pytest_runtest_makereport", "pytest_runtest_setup", "warehouse"]
