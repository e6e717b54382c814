"""pytest's side of the lab: `warehouse` for the session, `make_lab` for a test, and what a failed test shows.

A conftest imports these names. Tests marked `e2e` need root and the tools of `make apt`; without them they are skipped,
or, with P2PD_E2E=required in the environment (the gate sets it), fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.lab.lab import Lab, Plan
from tests.lab.warehouse import Warehouse

TOOLS = ("containerd", "ctr", "docker-registry", "skopeo", "ip", "tc", "setpriv")

_LABS = pytest.StashKey[list[Lab]]()

MakeLab = Callable[[Plan], Lab]


def missing() -> str:
    """What this machine lacks for end-to-end tests; empty if nothing."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0:
        lacking.insert(0, "root")
    return ", ".join(lacking)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips or fails a test that this machine can't run."""
    if item.get_closest_marker("e2e") and (lacking := missing()):
        reason = f"needs {lacking} (`make apt`)"
        if os.environ.get("P2PD_E2E") == "required":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Adds each lab's logs to the report of a failed test, while its processes still run."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for lab in item.stash.get(_LABS, []):
            report.sections.append((f"lab in {lab.directory}", lab.report()))


@pytest.fixture(scope="session")
def warehouse() -> Iterator[Warehouse]:
    """Images for all tests of the session."""
    with Warehouse() as made:
        yield made


@pytest.fixture
def make_lab(request: pytest.FixtureRequest, warehouse: Warehouse) -> Iterator[MakeLab]:
    """Builds labs that end with the test."""
    labs = request.node.stash.setdefault(_LABS, [])
    with contextlib.ExitStack() as stack:

        def make(plan: Plan) -> Lab:
            lab = Lab(warehouse.lab_directory(), warehouse.storage, plan)
            labs.append(lab)
            return stack.enter_context(lab)

        yield make
