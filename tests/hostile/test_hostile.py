"""The short form of `make hostile`: real daemons, one fleet with several liars, one whose seeder lies to a stream."""

from __future__ import annotations

import pytest

from tests.hostile.cases import MISFIT, problems
from tests.hostile.fleet import Case
from tests.hostile.lies import LIES
from tests.hostile.matrix import try_case
from tests.lab import Warehouse

pytestmark = pytest.mark.e2e


def test_two_of_six_lie_and_nobody_is_harmed(warehouse: Warehouse) -> None:
    case = Case("short", ("forges-run", "accuses"), size=8_000_000, rate=5e6, evidence=True)
    outcome = try_case(warehouse, case)
    assert problems(outcome) == []
    assert outcome.convicted["liar1"] == len(outcome.seen)


def test_a_stream_of_a_lying_seeder_ends_before_its_last_byte(warehouse: Warehouse) -> None:
    case = Case(
        "short, streamed", ("forges-seed",), nodes=4, size=8_000_000, rate=2e6, hold_back="0.3s", seeder_lies=True,
        evidence=True,
    )  # fmt: skip
    outcome = try_case(warehouse, case)
    assert problems(outcome) == []
    cut = [seen for seen in outcome.seen if seen.was_cut]
    assert cut
    assert outcome.refuted_streams >= len(cut)
    assert all(seen.again == 404 for seen in cut)


def test_every_lie_is_tried() -> None:
    from tests.hostile.cases import CASES

    tried = {lie for case in CASES for lies in (*case.liars, case.tracker) for lie in lies.split(",") if lie}
    assert tried == set(LIES)
    assert MISFIT in {case.says for case in CASES}
